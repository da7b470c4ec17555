"""The MAC of tokens is HMAC-SHA-256, as the standard library computes it."""

from __future__ import annotations

import base64
import hmac

from hypothesis import given
from hypothesis import strategies as st

from brandproxy.core.tokens import _Mac


@given(st.binary(max_size=64), st.binary(max_size=400))
def test_the_mac_is_hmac_sha_256_cut_to_128_bits(key: bytes, text: bytes) -> None:
    expected = base64.urlsafe_b64encode(hmac.digest(key, text, "sha256")[:16]).rstrip(b"=")
    assert _Mac(key)(text) == expected
