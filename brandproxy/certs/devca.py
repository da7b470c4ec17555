"""A certificate authority for one developer's machine: `dev-ca.pem` (to trust) and `dev-ca.key` (0600)."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from brandproxy.certs.vault import Certificate, certificate

_CA_DAYS, _LEAF_DAYS = 3650, 90


class DevCA:
    def __init__(self, data: Path) -> None:
        """Opens the CA of this data directory; makes it when there is none."""
        self.path = data / "dev-ca.pem"
        secret = data / "dev-ca.key"
        if not (self.path.exists() and secret.exists()):
            _make_ca(self.path, secret)
        key = serialization.load_pem_private_key(secret.read_bytes(), None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        self._key = key
        self._certificate = x509.load_pem_x509_certificate(self.path.read_bytes())

    def issue(self, host: str, now: float) -> Certificate:
        """A leaf for the host, valid 90 days from `now` (seconds)."""
        key = ec.generate_private_key(ec.SECP256R1())
        usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])
        names = x509.SubjectAlternativeName([x509.DNSName(host)])
        builder = (
            _builder(_name(host) if len(host) <= 64 else x509.Name([]), self._certificate.subject, key, now)
            .not_valid_after(_time(now) + timedelta(days=_LEAF_DAYS))
            .add_extension(names, critical=len(host) > 64)  # RFC 5280 §4.2.1.6: critical with an empty subject
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(digital_signature=True), critical=True)
            .add_extension(usage, critical=False)
            .add_extension(_issuer(self._key), critical=False)
        )
        leaf = builder.sign(self._key, hashes.SHA256())
        chain = _pem(leaf) + _pem(self._certificate)
        return certificate(host, chain.decode(), _key_pem(key), "dev")


def _make_ca(path: Path, secret: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    key = ec.generate_private_key(ec.SECP256R1())
    name, now = _name("brandproxy development CA"), datetime.now(UTC).timestamp()
    builder = (
        _builder(name, name, key, now)
        .not_valid_after(_time(now) + timedelta(days=_CA_DAYS))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(key_cert_sign=True, crl_sign=True), critical=True)
        .add_extension(_issuer(key), critical=False)
    )
    with os.fdopen(os.open(secret, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(_key_pem(key))
    path.write_bytes(_pem(builder.sign(key, hashes.SHA256())))


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, now: float
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(_time(now) - timedelta(hours=1))  # clocks differ
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _issuer(key: ec.EllipticCurvePrivateKey) -> x509.AuthorityKeyIdentifier:
    return x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key())


def _usage(digital_signature: bool = False, key_cert_sign: bool = False, crl_sign: bool = False) -> x509.KeyUsage:
    # Python 3.13 verifies strictly: every CA and leaf needs keyUsage (RFC 5280 §4.2.1.3).
    return x509.KeyUsage(digital_signature, False, False, False, False, key_cert_sign, crl_sign, False, False)


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _time(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
