"""A small ACME directory for what Pebble lacks: renewal windows (RFC 9773) and certificates of a given length.

It checks nothing of the challenges: the real protocol is tested against the real CA.
"""

from __future__ import annotations

import base64
import json
import ssl
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


class FakeCA:
    """`window(ari_id)` gives (start, end, Retry-After in seconds); `clock()` dates the certificates."""

    def __init__(self, folder: Path, lifetime: int, clock: Any) -> None:
        self.lifetime, self.clock = lifetime, clock
        self.windows: dict[str, tuple[float, float, int]] = {}
        self.asked: list[str] = []
        self.orders: list[dict[str, Any]] = []
        self.refuse_replaces = False
        self.profiles: dict[str, int] = {}  # name -> lifetime of its certificates
        self.trouble: Callable[[str, Any], tuple[int, Any, dict[str, str]] | None] = lambda path, body: None
        self.paths: list[str] = []
        self._chains: list[str] = []
        self._key = ec.generate_private_key(ec.SECP256R1())
        authority = trustme.CA()
        self.trust = folder / "fake-trust.pem"
        authority.cert_pem.write_to_path(str(self.trust))
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        authority.issue_cert("127.0.0.1").configure_cert(context)
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.base = f"https://127.0.0.1:{self._server.server_port}"
        self.url = f"{self.base}/dir"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    def __enter__(self) -> FakeCA:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def answer(self, path: str, body: Any) -> tuple[int, Any, dict[str, str]]:
        base, head = self.base, {}
        self.paths.append(path)
        if (found := self.trouble(path, body)) is not None:
            return found
        if path == "/dir":
            names = ("newNonce", "newAccount", "newOrder", "revokeCert", "keyChange", "renewalInfo")
            meta = {"profiles": dict.fromkeys(self.profiles, "told at length elsewhere")} if self.profiles else {}
            return 200, {name: f"{base}/{name}" for name in names} | {"meta": meta}, head
        if path.startswith("/renewalInfo/"):
            self.asked.append(path.rpartition("/")[2])
            start, end, wait = self.windows.get(self.asked[-1]) or self.windows.get("*", (0, 0, 0))
            return 200, {"suggestedWindow": {"start": _iso(start), "end": _iso(end)}}, {"Retry-After": str(wait)}
        if path == "/newAccount":
            return 201, {"status": "valid"}, {"Location": f"{base}/account/1"}
        if path == "/newOrder":
            self.orders.append(body)
            if body.get("replaces") and self.refuse_replaces:
                kind = "urn:ietf:params:acme:error:alreadyReplaced"
                return 400, {"type": kind, "detail": "already replaced"}, head
            return 201, self.order("ready"), {"Location": f"{base}/order/{len(self.orders)}"}
        if path.startswith("/finalize/"):
            self._chains.append(self._issue(x509.load_der_x509_csr(_bytes(body["csr"]))))
            return 200, self.order("valid"), head
        if path.startswith("/certificate/"):
            return 200, self._chains[-1], head
        return 200, self.order("valid"), head

    def order(self, status: str) -> dict[str, Any]:
        return {
            "status": status, "authorizations": [], "identifiers": [], "finalize": f"{self.base}/finalize/1",
            **({"certificate": f"{self.base}/certificate/1"} if status == "valid" else {}),
        }  # fmt: skip

    def _lasts(self) -> int:
        return self.profiles.get(self.orders[-1].get("profile", ""), self.lifetime)

    def _issue(self, csr: x509.CertificateSigningRequest) -> str:
        begins = datetime.fromtimestamp(self.clock(), UTC)
        public = csr.public_key()
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "fake")])
        builder = (
            x509.CertificateBuilder()
            .subject_name(csr.subject)
            .issuer_name(name)
            .public_key(public)  # type: ignore[arg-type]
            .serial_number(x509.random_serial_number())
            .not_valid_before(begins)
            .not_valid_after(begins + timedelta(seconds=self._lasts()))
            .add_extension(csr.extensions.get_extension_for_class(x509.SubjectAlternativeName).value, False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), False)
        )
        return builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()


def _handler(ca: FakeCA) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self._send(200, "", {})

        def do_GET(self) -> None:
            self._send(*ca.answer(self.path, None))

        def do_POST(self) -> None:
            sent = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            payload = _bytes(sent["payload"])
            self._send(*ca.answer(self.path, json.loads(payload) if payload else None))

        def _send(self, status: int, body: Any, head: dict[str, str]) -> None:
            text = body if isinstance(body, str) else json.dumps(body)
            kind = "application/problem+json" if status >= 400 else "application/json"
            self.send_response(status)
            for name, value in {"Replay-Nonce": "bm9uY2U", "Content-Type": kind, **head}.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(text.encode())

        def log_message(self, *_: object) -> None: ...

    return Handler


def _bytes(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")
