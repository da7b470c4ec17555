"""POST /v1/rewrite: a message in, a message out, for the key's tenant only."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from email import message_from_bytes
from email.policy import SMTP
from pathlib import Path

import httpx
import pytest
from openapi_spec_validator import validate
from starlette.applications import Starlette

import brandproxy
from brandproxy import access, web
from brandproxy.context import Context
from brandproxy.errors import BrandproxyError
from brandproxy.filters import http
from brandproxy.filters.pipeline import Pipeline
from tests.filters.conftest import HTML, LINK, installation

BRANDED = b"https://links.acme.example/c/"
MAIL = {"Content-Type": "message/rfc822"}


@pytest.fixture
async def context(tmp_path: Path) -> AsyncIterator[Context]:
    async with installation(tmp_path, max_message=200_000) as context:
        await context.registry.add_tenant("other")
        await context.directory.load(context.store)
        yield context


@pytest.fixture
async def client(context: Context) -> AsyncIterator[httpx.AsyncClient]:
    app = Starlette(routes=http.routes(context), exception_handlers={BrandproxyError: web.on_error})
    app.state.context = context
    _, key = await access.create_key(context.store, "acme")
    headers = {"Authorization": f"Bearer {key}"}
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(
        transport=transport, base_url="http://control.example", headers=headers
    ) as client:
        yield client


async def test_a_message_comes_back_with_figures(client: httpx.AsyncClient) -> None:
    answer = await client.post("/v1/rewrite", content=HTML, headers=MAIL, params={"campaign": "spring"})
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "message/rfc822"
    assert BRANDED in answer.content
    assert LINK not in answer.content
    figures = json.loads(answer.headers["brandproxy-report"])
    assert figures == {"outcome": "rewritten", "tenant": "acme", "rewritten": 1, "skipped": 0, "reason": ""}


async def test_the_full_report_comes_beside_the_message_and_restores_it(client: httpx.AsyncClient) -> None:
    answer = await client.post("/v1/rewrite", content=HTML, headers=MAIL | {"Accept": "multipart/mixed"})
    head = b"Content-Type: " + answer.headers["content-type"].encode() + b"\r\n\r\n"
    report, _ = message_from_bytes(head + answer.content, policy=SMTP).iter_parts()  # type: ignore[attr-defined]
    boundary = answer.headers["content-type"].partition("boundary=")[2].encode()
    message = answer.content.split(b"--" + boundary)[2].partition(b"\r\n\r\n")[2][:-2]
    content = json.loads(report.get_content() if report.get_content_maintype() == "text" else report.get_payload())
    assert content["outcome"] == "rewritten"
    assert brandproxy.unrewrite(message, brandproxy.Report.from_dict(content["report"])) == HTML


async def test_another_tenants_name_is_not_found_and_its_header_not_believed(client: httpx.AsyncClient) -> None:
    answer = await client.post("/v1/rewrite", content=HTML, headers=MAIL, params={"tenant": "other"})
    assert answer.status_code == 404
    answer = await client.post("/v1/rewrite", content=b"X-Brandproxy-Tenant: other\r\n" + HTML, headers=MAIL)
    assert json.loads(answer.headers["brandproxy-report"])["tenant"] == "acme"
    assert b"X-Brandproxy" not in answer.content


async def test_an_operators_key_rewrites_for_whom_it_names(client: httpx.AsyncClient, context: Context) -> None:
    _, key = await access.create_key(context.store, None)
    headers = MAIL | {"Authorization": f"Bearer {key}"}
    others = HTML.replace(b"acme.example", b"example.net")
    answer = await client.post("/v1/rewrite", content=others, headers=headers, params={"tenant": "acme"})
    assert BRANDED in answer.content
    answer = await client.post("/v1/rewrite", content=others, headers=headers)
    assert answer.content == others
    assert json.loads(answer.headers["brandproxy-report"])["outcome"] == "nobody's"


async def test_an_operators_mistake_in_the_tenants_name_is_told(
    client: httpx.AsyncClient, context: Context
) -> None:
    """A mail for a tenant nobody knows would go out unbranded, and nobody would notice."""
    _, key = await access.create_key(context.store, None)
    headers = MAIL | {"Authorization": f"Bearer {key}"}
    answer = await client.post("/v1/rewrite", content=HTML, headers=headers, params={"tenant": "acne"})
    assert answer.status_code == 404
    said = b"X-Brandproxy-Tenant: " + b"a" * 50_000 + b"\r\n" + HTML
    answer = await client.post("/v1/rewrite", content=said, headers=headers)
    assert (answer.status_code, answer.content) == (200, HTML)
    assert len(answer.headers["brandproxy-report"]) < 1000


async def test_mail_may_come_as_often_as_it_does(client: httpx.AsyncClient, context: Context) -> None:
    client._transport.app.state.budget = web.Budget(rate=0, burst=3)  # type: ignore[attr-defined]
    for _ in range(5):
        assert (await client.post("/v1/rewrite", content=HTML, headers=MAIL)).status_code == 200


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"headers": MAIL | {"Authorization": "Bearer bp_x_y"}}, 401),
        ({"headers": {"Content-Type": "application/json"}}, 415),
        ({"params": {"campaign": "x" * 300}}, 400),
        ({"params": {"recipient": "a\nb"}}, 400),
        ({"content": b"a" * 200_001}, 413),
        ({"method": "GET"}, 405),
    ],
)
async def test_what_is_refused_and_how(client: httpx.AsyncClient, change: dict[str, object], status: int) -> None:
    request = {"method": "POST", "url": "/v1/rewrite", "content": HTML, "headers": MAIL, **change}
    answer = await client.request(**request)  # type: ignore[arg-type]
    assert answer.status_code == status
    if status != 405:
        assert answer.headers["content-type"] == "application/problem+json"


async def test_a_body_of_unknown_length_is_bounded_too(client: httpx.AsyncClient) -> None:
    async def endless() -> AsyncIterator[bytes]:
        for _ in range(300):
            yield b"a" * 1000

    assert (await client.post("/v1/rewrite", content=endless(), headers=MAIL)).status_code == 413


async def test_a_client_that_goes_away_in_mid_message_is_no_fault_of_ours(client: httpx.AsyncClient) -> None:
    """Raised on, it would be a traceback in the server's log for each."""
    app = client._transport.app  # type: ignore[attr-defined]
    head = [(name.lower().encode(), value.encode()) for name, value in (MAIL | dict(client.headers)).items()]
    scope = {"type": "http", "method": "POST", "path": "/v1/rewrite", "query_string": b"", "headers": head}
    said = iter([{"type": "http.request", "body": b"half", "more_body": True}, {"type": "http.disconnect"}])
    answers: list[dict[str, object]] = []

    async def receive() -> dict[str, object]:
        return next(said)

    async def send(answer: dict[str, object]) -> None:
        answers.append(answer)

    await app(scope, receive, send)
    assert answers[0]["status"] == 400


async def test_too_many_at_once_are_asked_to_come_back(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Pipeline, "busy", property(lambda self: True))
    assert (await client.post("/v1/rewrite", content=HTML, headers=MAIL)).status_code == 503


def test_the_description_is_valid_openapi() -> None:
    schemes = {"bearer": {"type": "http", "scheme": "bearer"}}
    validate(
        {
            "openapi": "3.1.0",
            "info": {"title": "brandproxy", "version": "1"},
            "paths": http.PATHS,
            "components": {"securitySchemes": schemes},
        }
    )
