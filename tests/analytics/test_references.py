"""References are the pipeline's own and may be any text: each can be looked up and erased."""

from __future__ import annotations

from html import unescape
from urllib.parse import urlencode

import pytest

from brandproxy.analytics.dashboard import pages

from .conftest import Port, event, put

A = "/v1/analytics"
REFERENCES = [
    "list/4711", ".", "..", "a/../b", "/", "//", "?", "#", "a?b=c&d", "a#b", "+", "a+b c", "%2F", "%", "%00", "&",
    "=", "é", "日本語", "😀", "dGVzdA==", "a/b+c==", " ", "\\", "'", '"', "`", "<b>", "a\nb", "null", "0", "-r",
    "x" * 128,
]  # fmt: skip


@pytest.fixture
async def filled(port: Port) -> Port:
    people = [
        event(recipient=r, message=f"m{r}", campaign=r, tenant=t) for r in REFERENCES for t in ("acme", "globex")
    ]
    await put(port.engine, people)
    return port


async def test_every_reference_can_be_looked_up(filled: Port) -> None:
    for reference in REFERENCES:
        for name, value in (("recipient", reference), ("message", f"m{reference}")):
            answer = await filled.get(f"{A}/timeline", filled.acme, **{name: value})
            found = [(e["recipient"], e["tenant"]) for e in answer.json()["events"]]
            assert (reference, found) == (reference, [(reference, "acme")])
        by_campaign = await filled.get(f"{A}/summary", filled.acme, campaign=reference)
        assert by_campaign.json()["clicks"] == 1


async def test_every_reference_can_be_erased_and_only_that_one(filled: Port) -> None:
    left = len(REFERENCES) * 2
    headers = {"Authorization": f"Bearer {filled.acme}"}
    for reference in REFERENCES:
        answer = await filled.client.post(f"{A}/forget", headers=headers, json={"recipient": reference})
        assert (reference, answer.json()) == (reference, {"deleted": 1})
        left -= 1
        [(count,)] = await filled.engine.query("SELECT count(*) FROM events")
        assert count == left
    [(others,)] = await filled.engine.query("SELECT count(*) FROM events WHERE tenant = 'globex'")
    assert others == len(REFERENCES)


@pytest.mark.parametrize(
    "body",
    [
        '{"recipient": ""}', '{"recipient": null}',
        '{"recipient": "a\\u0000"}', '{"recipient": "\\ud800"}', "{}", "[]",
        '{"recipient": "' + "x" * 513 + '"}', '{"recipient": "a", "recipient": "b"}', '{"recipent": "a"}',
        '{"recipient": 5}', '{"recipient": ["a"]}',
    ],
)  # fmt: skip
async def test_what_is_no_reference_erases_nothing(filled: Port, body: str) -> None:
    headers = {"Authorization": f"Bearer {filled.acme}"}
    assert (await filled.client.post(f"{A}/forget", headers=headers, content=body)).status_code == 400
    assert (await filled.client.post(f"{A}/forget?tenant=acme", headers=headers, content="{}")).status_code == 400
    [(count,)] = await filled.engine.query("SELECT count(*) FROM events")
    assert count == len(REFERENCES) * 2


async def test_a_key_erases_its_own_recipients_only_and_an_operator_says_whose(filled: Port) -> None:
    def post(key: str, **body: str) -> object:
        return filled.client.post(f"{A}/forget", headers={"Authorization": f"Bearer {key}"}, json=body)

    assert (await post(filled.acme, recipient="é", tenant="globex")).status_code == 404  # type: ignore[misc]
    assert (await post(filled.operator, recipient="é")).status_code == 400  # type: ignore[misc]
    answer = await post(filled.operator, recipient="é", tenant="globex")  # type: ignore[misc]
    assert answer.json() == {"deleted": 1}
    assert (await filled.get(f"{A}/timeline", filled.acme)).status_code == 400


async def test_the_dashboard_leads_to_every_reference(filled: Port) -> None:
    filled.app.router.routes.extend(pages.routes(filled.context, filled.engine))
    headers = {"Authorization": f"Bearer {filled.acme}"}
    for reference in REFERENCES:
        page = await filled.client.get("/recipient?" + urlencode({"recipient": reference}), headers=headers)
        assert (reference, page.status_code) == (reference, 200)
        assert reference in unescape(page.text)
