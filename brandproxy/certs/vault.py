"""Certificates in the store. Invariant: what is stored under a host is a chain whose leaf names that host,
together with its own private key, which is sealed; a pair that does not match is refused on the way in.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.x509.oid import ExtensionOID

from brandproxy.core import names
from brandproxy.errors import BadInput, NotFound
from brandproxy.store import Store, keys
from brandproxy.store.records import BROKEN
from brandproxy.store.seal import Seal

_YEAR_9999 = 253_402_300_799  # seconds; what shows a time can show no later one


@dataclass(frozen=True, slots=True)
class Certificate:
    """A host's certificate. `chain` is PEM, leaf first; `key` PKCS#8 PEM; times are seconds.

    `ca` tells where it came from: an ACME directory URL, `dev` or `import`; the next one is by the CA in force.
    """

    host: str
    chain: str
    key: bytes = field(repr=False)
    ca: str
    not_before: int
    not_after: int
    serial: str
    names: tuple[str, ...]

    @property
    def lifetime(self) -> int:
        return self.not_after - self.not_before


@dataclass(frozen=True, slots=True)
class Facts:
    """What planning needs to know of a stored certificate; read without opening its seal."""

    serial: str
    ca: str
    not_before: int
    not_after: int


def facts(value: bytes) -> Facts | None:
    """The facts of a stored record; None when it cannot be read (a new certificate will replace it)."""
    try:
        record = json.loads(value)
        begins, ends = int(record["not_before"]), int(record["not_after"])
        whole = 0 <= begins < ends < _YEAR_9999
        return Facts(str(record["serial"]), str(record["ca"]), begins, ends) if whole else None
    except BROKEN:
        return None


def chain_of(value: bytes) -> str:
    """The chain of a stored record, its seal unopened. Raises BadInput."""
    try:
        return str(json.loads(value)["chain"])
    except BROKEN as error:
        raise BadInput(f"the stored certificate cannot be read: {error}") from error


def certificate(host: str, chain: str, key: bytes, ca: str) -> Certificate:
    """A checked Certificate. Raises BadInput when chain and key do not belong together or do not fit the host."""
    try:
        leaf = x509.load_pem_x509_certificates(chain.encode())[0]
        secret = serialization.load_pem_private_key(key, None)
        alternative = leaf.extensions.get_extension_for_oid(ExtensionOID.SUBJECT_ALTERNATIVE_NAME).value
    except (ValueError, TypeError, IndexError, UnsupportedAlgorithm, x509.ExtensionNotFound) as error:
        raise BadInput(f"certificate for {host} cannot be read: {error}", "Give PEM files, leaf first.") from error
    if leaf.public_key() != secret.public_key():
        raise BadInput(f"certificate and private key for {host} do not belong together")
    assert isinstance(alternative, x509.SubjectAlternativeName)
    dns = tuple(name.lower() for name in alternative.get_values_for_type(x509.DNSName))
    if not covers(dns, host):
        raise BadInput(f"the certificate is for {', '.join(dns)}, not for {host}")
    plain = secret.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    begins, ends = int(leaf.not_valid_before_utc.timestamp()), int(leaf.not_valid_after_utc.timestamp())
    return Certificate(host, chain, plain, ca, begins, ends, f"{leaf.serial_number:x}", dns)


def covers(dns: tuple[str, ...], host: str) -> bool:
    """RFC 6125 §6.4.3: a wildcard stands for exactly one left-most label."""
    return host in dns or f"*.{host.partition('.')[2]}" in dns


class Vault:
    def __init__(self, store: Store, seal: Seal) -> None:
        self._store = store
        self._seal = seal

    async def get(self, host: str) -> Certificate | None:
        """The host's certificate. Raises BadSettings when the master key in force does not open its key."""
        entry = await self._store.get(keys.cert(host))
        return None if entry is None else self.decode(host, entry.value)

    async def put(self, certificate: Certificate) -> None:
        record = {
            "version": 1,
            "chain": certificate.chain,
            "key": self._seal.seal(certificate.key).decode(),
            "ca": certificate.ca,
            "serial": certificate.serial,
            "not_before": certificate.not_before,
            "not_after": certificate.not_after,
        }
        await self._store.put(keys.cert(certificate.host), json.dumps(record).encode())

    async def remove(self, host: str) -> None:
        if not await self._store.delete(keys.cert(host)):
            raise NotFound(f"no certificate for {host}", "See `brandproxy cert list`.")

    async def hosts(self) -> list[str]:
        """The names that have a certificate."""
        return [entry.key.removeprefix(keys.CERT) for entry in await self._store.list(keys.CERT)]

    async def everything(self) -> list[tuple[str, bytes]]:
        """Host and stored record of all; `decode` makes Certificates of them."""
        return [(entry.key.removeprefix(keys.CERT), entry.value) for entry in await self._store.list(keys.CERT)]

    def decode(self, host: str, value: bytes) -> Certificate:
        """A Certificate of a stored record. Raises BadInput, BadSettings."""
        names.hostname(host)  # it becomes a folder's name
        try:
            record = json.loads(value)
            chain, sealed, ca = str(record["chain"]), str(record["key"]).encode(), str(record["ca"])
        except BROKEN as error:
            raise BadInput(f"the stored certificate of {host} cannot be read: {error}") from error
        return certificate(host, chain, self._seal.open(sealed), ca)
