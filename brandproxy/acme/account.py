"""ACME (RFC 8555) with ARI (RFC 9773) and profiles: one account at one CA.

The `acme` library speaks the protocol; it blocks, so every call runs in this account's own threads, each with
a client (connection, nonces) of its own. Waiting is done here, on the event loop. Beyond the library: badNonce
is tried again more than once, `replaces` in new orders, account key roll-over, Retry-After on errors.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar, cast

import josepy as jose
import requests
from acme import errors, jws, messages
from acme.client import ClientV2
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from brandproxy.acme.network import (
    AcmeAway,
    AcmeRefused,
    KeyChange,
    Network,
    NewOrder,
    code_of,
    seconds,
    translated,
)
from brandproxy.core.renewal import Window, ari_id

T = TypeVar("T")

_DEADLINE = 120.0  # seconds for the CA to validate, and again to issue
_AGENT = "brandproxy"
# Seconds until a window is asked for again: when the CA does not say, and what we let it say (RFC 9773 §4.3.2).
_ASK, _ASK_LEAST, _ASK_MOST = 6 * 3600.0, 60.0, 86400.0


@dataclass(frozen=True, slots=True)
class Order:
    """`status`: pending, ready, processing, valid, invalid."""

    uri: str
    status: str
    authorizations: tuple[str, ...]
    finalize: str
    certificate: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Challenge:
    """`name` is the identifier; `answer` what is served under `token` (http-01) or put in TXT (dns-01)."""

    name: str
    token: str
    answer: str
    body: Any = field(repr=False)


@dataclass(frozen=True, slots=True)
class RenewalInfo:
    window: Window | None
    ask_at: float  # not before (RFC 9773 §4.3.2)


class Account:
    """`key` is the account's P-256 key; `trust` a CA file for the directory's own TLS. Close when done."""

    def __init__(
        self, url: str, key: ec.EllipticCurvePrivateKey, trust: Path | None = None, threads: int = 8
    ) -> None:
        self.url = url
        self.uri = ""
        self.skew = 0.0  # CA's clock minus ours, seconds, as last seen
        self._key = jose.JWKEC(key=key)
        self._trust: Any = str(trust) if trust else True
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="acme")
        self._local = threading.local()
        self._networks: list[Network] = []
        self._directory: messages.Directory | None = None

    async def open(self, contact: str = "", eab: tuple[str, str] | None = None, existing: bool = False) -> None:
        """Read the directory; find or make the account. `eab`: (key id, base64url HMAC key).

        `existing`: do not make one; raises AcmeRefused when the CA does not know the key.
        """

        def register(client: ClientV2) -> str:
            binding = None
            if eab:
                public = self._key.public_key()
                binding = messages.ExternalAccountBinding.from_data(public, *eab, client.directory)
            wanted = messages.NewRegistration.from_data(
                email=contact or None,
                terms_of_service_agreed=True,
                external_account_binding=binding,
                only_return_existing=existing or None,
            )
            try:
                return str(client.new_account(wanted).uri)
            except errors.ConflictError as known:
                return str(known.location)

        self.uri = await self._run(register)
        self._local = threading.local()  # clients made from here on sign with the account's URL

    async def order(self, csr: bytes, names: tuple[str, ...], profile: str = "", replaces: str = "") -> Order:
        """A new order. A refused `replaces` is left out and the order made again (RFC 9773 §5)."""

        def make(client: ClientV2) -> Order:
            chosen = _profile(client.directory, profile)
            named = replaces if client.directory.to_partial_json().get("renewalInfo") else ""  # RFC 9773 §5
            identifiers = [messages.Identifier(typ=messages.IDENTIFIER_FQDN, value=name) for name in names]
            wanted = NewOrder(identifiers=identifiers, profile=chosen or None, replaces=named or None)
            answer = client.net.post(client.directory["newOrder"], wanted, **self._nonces(client))
            return _order(answer, answer.headers.get("Location", ""))

        try:
            return await self._run(make)
        except AcmeRefused as refused:
            if not replaces or refused.code not in ("alreadyReplaced", "conflict", "malformed", "unauthorized"):
                raise
        return await self.order(csr, names, profile)

    async def measure(self) -> None:
        """Look at the CA's clock again (`skew`)."""
        await self._run(lambda client: client.net.head(client.directory["newNonce"]))

    async def resume(self, uri: str) -> Order:
        return await self._run(lambda client: _order(self._read(client, uri), uri))

    async def challenges(self, order: Order, kind: str) -> list[Challenge]:
        """What is still to be proven, by challenges of this kind (http-01, dns-01). Raises AcmeRefused."""

        def read(client: ClientV2) -> list[Challenge]:
            found = []
            for url in order.authorizations:
                body = messages.Authorization.from_json(self._read(client, url).json())
                if body.status == messages.STATUS_PENDING:
                    found.append(self._challenge(body, kind))
            return found

        return await self._run(read)

    def _challenge(self, authorization: Any, kind: str) -> Challenge:
        name = authorization.identifier.value
        offered = next((c for c in authorization.challenges if c.chall.typ == kind), None)
        if offered is None:
            raise AcmeRefused(f"the CA offers no {kind} challenge for {name}", "unsupported")
        return Challenge(name, offered.chall.encode("token"), str(offered.validation(self._key)), offered)

    async def answer(self, challenge: Challenge) -> None:
        """Tell the CA that the answer is in place."""
        response = challenge.body.response(self._key)
        await self._run(lambda client: client.answer_challenge(challenge.body, response))

    async def settle(self, order: Order) -> Order:
        """Wait until the CA has validated. Raises AcmeRefused in the CA's words, AcmeAway after two minutes."""
        order = await self._wait(order.uri, {"pending"})
        if order.status == "invalid":
            raise await self._failure(order)
        return order

    async def finish(self, order: Order, csr: bytes) -> str:
        """Finalize and download; the chain as PEM, leaf first."""
        request = messages.CertificateRequest(csr=x509.load_pem_x509_csr(csr))
        if order.status == "ready":

            def finalize(client: ClientV2) -> Order:
                answer = client.net.post(order.finalize, request, **self._nonces(client))
                return _order(answer, order.uri)

            order = await self._run(finalize)
        if order.status in ("processing", "ready"):
            order = await self._wait(order.uri, {"processing", "ready"})
        if order.status != "valid":
            raise await self._failure(order)
        return await self._run(lambda client: str(self._read(client, order.certificate).text))

    async def renewal_info(self, chain: str, now: float) -> RenewalInfo | None:
        """The CA's suggested window, or None when it has none to give (RFC 9773 §4.2)."""
        leaf = x509.load_pem_x509_certificates(chain.encode())[0]
        certificate_id = ari_of(leaf)

        def read(client: ClientV2) -> RenewalInfo | None:
            base = client.directory.to_partial_json().get("renewalInfo")
            if not base or not certificate_id:
                return None
            answer = client.net.get(f"{base}/{certificate_id}")
            told = answer.json()["suggestedWindow"]
            window = Window(seconds(told["start"]), seconds(told["end"]))
            wait = min(max(cast(Network, client.net).retry_in() or _ASK, _ASK_LEAST), _ASK_MOST)
            return RenewalInfo(window if window.end > window.start else None, now + wait)

        return await self._run(read)

    async def revoke(self, chain: str, reason: int) -> None:
        """RFC 8555 §7.6; reasons as in RFC 5280 §5.3.1 (1: key compromised, 4: superseded)."""
        leaf = x509.load_pem_x509_certificates(chain.encode())[0]
        await self._run(lambda client: client.revoke(leaf, reason))

    async def roll_over(self, key: ec.EllipticCurvePrivateKey) -> None:
        """Change the account's key (RFC 8555 §7.3.5)."""
        fresh = jose.JWKEC(key=key)

        def change(client: ClientV2) -> None:
            url = client.directory["keyChange"]
            inner = KeyChange(account=self.uri, old_key=self._key.public_key())
            signed = jws.JWS.sign(inner.json_dumps().encode(), key=fresh, alg=jose.ES256, nonce=None, url=url)
            client.net.post(url, signed, **self._nonces(client))

        await self._run(change)
        self._key, self._local = fresh, threading.local()

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)
        for network in self._networks:
            network.session.close()

    async def _wait(self, uri: str, while_in: set[str]) -> Order:
        """Until the order left these states; no quicker than the CA's Retry-After (RFC 8555 §7.4)."""
        deadline, pause = time.monotonic() + _DEADLINE, 0.2

        def read(client: ClientV2) -> tuple[Order, float]:
            return _order(self._read(client, uri), uri), cast(Network, client.net).retry_in()

        while True:
            order, told = await self._run(read)
            if order.status not in while_in:
                return order
            if time.monotonic() + max(pause, told) > deadline:
                raise AcmeAway(f"the CA leaves an order {order.status}", told)
            await asyncio.sleep(max(pause, told))
            pause = min(pause * 1.5, 5.0)

    async def _failure(self, order: Order) -> AcmeRefused:
        """Why an order became invalid: the error of the challenge that failed, else the order's own."""

        def read(client: ClientV2) -> AcmeRefused:
            for url in order.authorizations:
                body = messages.Authorization.from_json(self._read(client, url).json())
                for challenge in body.challenges or ():
                    if challenge.error is not None:
                        name = body.identifier.value
                        text = f"the CA could not validate {name}: {challenge.error.detail}"
                        return AcmeRefused(text, code_of(challenge.error))
            return AcmeRefused(f"the CA gave up the order: {order.detail or order.status}", "orderInvalid")

        return await self._run(read)

    def _read(self, client: ClientV2, url: str) -> requests.Response:
        """POST-as-GET (RFC 8555 §6.3)."""
        return client.net.post(url, None, **self._nonces(client))

    def _nonces(self, client: ClientV2) -> dict[str, str]:
        return {"new_nonce_url": client.directory["newNonce"]}

    async def _run(self, work: Callable[[ClientV2], T]) -> T:
        def call() -> T:
            network: Network | None = None
            try:
                client = self._client()
                network = cast(Network, client.net)
                network.begin()
                return work(client)
            except (AcmeRefused, AcmeAway):
                raise
            except Exception as error:
                raise translated(error, self.url, network.retry_in() if network else 0.0) from error
            finally:
                self.skew = network.skew if network else self.skew

        return await asyncio.get_running_loop().run_in_executor(self._pool, call)

    def _client(self) -> ClientV2:
        """This thread's client."""
        found: ClientV2 | None = getattr(self._local, "client", None)
        if found is None:
            account = messages.RegistrationResource(uri=self.uri, body=messages.Registration())
            network = Network(
                self._key, account if self.uri else None, jose.ES256, verify_ssl=self._trust, user_agent=_AGENT
            )
            self._networks.append(network)
            if self._directory is None:
                self._directory = ClientV2.get_directory(self.url, network)
            found = self._local.client = ClientV2(self._directory, network)
        return found


def new_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def ari_of(leaf: x509.Certificate) -> str:
    """The leaf's ARI identifier; empty when it lacks an authority key identifier."""
    try:
        found = leaf.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value.key_identifier
    except x509.ExtensionNotFound:
        return ""
    return ari_id(found, leaf.serial_number) if found else ""


def _profile(directory: messages.Directory, wanted: str) -> str:
    """The profile to ask for; none of a CA that has no profiles (a second CA, mostly). Raises AcmeRefused."""
    offered = directory.meta.profiles or {}
    if wanted and offered and wanted not in offered:
        raise AcmeRefused(
            f"the CA has no profile {wanted!r}; it has {', '.join(sorted(offered))}", "invalidProfile"
        )
    return wanted if offered else ""


def _order(answer: requests.Response, uri: str) -> Order:
    body = answer.json()
    detail = (body.get("error") or {}).get("detail", "")
    return Order(
        uri, body["status"], tuple(body.get("authorizations", ())), body["finalize"],
        body.get("certificate", ""), str(detail),
    )  # fmt: skip
