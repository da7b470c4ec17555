"""ACME against a real CA that rejects nonces."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509.oid import NameOID

from brandproxy.acme import Account, AcmeAway, AcmeRefused, new_key
from tests.parts import EAB_KEY, ChallengeServer, Knot, Pebble

ANSWERS: dict[str, bytes] = {}


async def answers(token: str) -> bytes | None:
    return ANSWERS.get(token)


@pytest.fixture
async def server() -> AsyncIterator[ChallengeServer]:
    async with ChallengeServer(answers) as server:
        yield server


@pytest.fixture
def pebble(tmp_path: Path, knot: Knot, server: ChallengeServer) -> Iterator[Pebble]:
    pebble = Pebble(tmp_path / "pebble", knot.server, server.port, nonces=30)
    pebble.start()
    yield pebble
    pebble.stop()


def request(*names: str) -> bytes:
    dns = x509.SubjectAlternativeName([x509.DNSName(name) for name in names])
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).add_extension(dns, False)
    return builder.sign(new_key(), hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


async def obtain(account: Account, name: str) -> str:
    csr = request(name)
    order = await account.order(csr, (name,))
    for challenge in await account.challenges(order, "http-01"):
        ANSWERS[challenge.token] = challenge.answer.encode()
        await account.answer(challenge)
    return await account.finish(await account.settle(order), csr)


async def test_orders_succeed_while_the_ca_rejects_a_third_of_all_nonces(pebble: Pebble) -> None:
    account = Account(pebble.url, new_key(), pebble.trust)
    await account.open("ops@esp.test")
    names = [f"h{number}.edge.test" for number in range(8)]
    chains = await asyncio.gather(*(obtain(account, name) for name in names))
    for name, chain in zip(names, chains, strict=True):
        leaf = x509.load_pem_x509_certificates(chain.encode())[0]
        dns = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        assert dns.get_values_for_type(x509.DNSName) == [name]
        assert not leaf.subject.get_attributes_for_oid(NameOID.SERIAL_NUMBER)
    await account.revoke(chains[0], 4)
    with pytest.raises(AcmeRefused):
        await account.revoke(chains[0], 4)
    assert abs(account.skew) < 60
    account.close()


async def test_an_account_is_found_again_and_its_key_rolls_over(pebble: Pebble) -> None:
    key, fresh = new_key(), new_key()
    first, second, third = (Account(pebble.url, one, pebble.trust) for one in (key, key, fresh))
    await first.open()
    await second.open()
    assert first.uri == second.uri
    await first.roll_over(fresh)
    await obtain(first, "rolled.edge.test")
    await third.open()
    assert third.uri == first.uri
    for account in (first, second, third):
        account.close()


async def test_a_refusal_is_told_in_the_cas_words(pebble: Pebble) -> None:
    account = Account(pebble.url, new_key(), pebble.trust)
    await account.open()
    order = await account.order(b"", ("wrong.edge.test",))
    for challenge in await account.challenges(order, "http-01"):
        ANSWERS[challenge.token] = b"another answer"
        await account.answer(challenge)
    with pytest.raises(AcmeRefused, match=r"could not validate wrong\.edge\.test") as refused:
        await account.settle(order)
    assert refused.value.code == "unauthorized"
    account.close()


async def test_external_account_binding_opens_accounts_that_need_it(
    tmp_path: Path, knot: Knot, server: ChallengeServer
) -> None:
    pebble = Pebble(tmp_path / "eab", knot.server, server.port, eab=True)
    pebble.start()
    try:
        bound, unbound = (Account(pebble.url, new_key(), pebble.trust) for _ in range(2))
        with pytest.raises(AcmeRefused):
            await unbound.open()
        await bound.open("", ("kid-1", EAB_KEY))
        assert bound.uri
    finally:
        pebble.stop()


async def test_a_ca_that_is_down_is_away_not_refusing() -> None:
    account = Account("https://127.0.0.1:9/dir", new_key())
    with pytest.raises(AcmeAway):
        await account.open()
    account.close()
