"""DKIM key records (RFC 6376 §3.6.1): what a signer's tool wrote becomes the TXT record, checked."""

from __future__ import annotations

import base64
import binascii
import re

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa

from brandproxy.errors import BadInput

_QUOTED = re.compile(r'"([^"]*)"')
_LEAST = 1024  # bits; RFC 8301 §3.2 lets verifiers refuse shorter ones


def key_record(text: str) -> str:
    """The record for a public key given as PEM, as a record's text, or as `opendkim-genkey` writes it.

    Raises BadInput for what verifiers would not take, and for a private key: those stay with the signer.
    """
    if "PRIVATE KEY" in text:
        raise BadInput("this is a private key: it stays with the signer", "Give the public key or its TXT record.")
    if "BEGIN PUBLIC KEY" in text:
        return _of_pem(text)
    record = "".join(_QUOTED.findall(text)) or text.strip()
    reason = fault(record)
    if reason:
        raise BadInput(
            f"not a DKIM key record: {reason}", "Give the file that opendkim-genkey wrote, or a PEM file."
        )
    return record


REVOKED = "v=DKIM1; p="  # §3.6.1: this key was revoked


def same_key(one: str, two: str) -> bool:
    """Whether two records hold the same public key."""
    found = [dict(_tags(record)) for record in (one, two)]
    algorithm, key = ([tags.get(name, default) for tags in found] for name, default in (("k", "rsa"), ("p", "")))
    key = ["".join(text.split()) for text in key]
    return bool(key[0]) and key[0] == key[1] and algorithm[0] == algorithm[1]


def fault(record: str) -> str:
    """Why verifiers would not take a record; empty: they would."""
    tags = dict(_tags(record))
    if tags.get("v", "DKIM1") != "DKIM1":
        return "its version is not DKIM1"
    if not tags.get("p"):
        return "it has no key (p=)"
    try:
        raw = base64.b64decode("".join(tags["p"].split()), validate=True)
        if tags.get("k", "rsa") == "ed25519":
            ed25519.Ed25519PublicKey.from_public_bytes(raw)
            return ""
        key = serialization.load_der_public_key(raw)
    except (binascii.Error, ValueError, UnsupportedAlgorithm):
        return "its key cannot be read"
    if not isinstance(key, rsa.RSAPublicKey):
        return "its key is of another kind than it says"
    return "" if key.key_size >= _LEAST else f"its key has {key.key_size} bits only"


def _of_pem(text: str) -> str:
    try:
        key = serialization.load_pem_public_key(text.encode())
    except (ValueError, UnsupportedAlgorithm) as error:
        raise BadInput(f"the public key cannot be read: {error}") from error
    if isinstance(key, ed25519.Ed25519PublicKey):
        return f"v=DKIM1; k=ed25519; p={base64.b64encode(key.public_bytes_raw()).decode()}"
    form = serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    record = f"v=DKIM1; k=rsa; p={base64.b64encode(key.public_bytes(*form)).decode()}"
    if reason := fault(record):
        raise BadInput(f"the public key cannot be used: {reason}")
    return record


def _tags(record: str) -> list[tuple[str, str]]:
    parts = [part.partition("=") for part in record.split(";") if part.strip()]
    return [(name.strip(), value.strip()) for name, _, value in parts]
