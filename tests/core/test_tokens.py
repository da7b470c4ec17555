"""Tokens: what was mailed opens for ever, and nothing else opens at all."""

from __future__ import annotations

import json
import string
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brandproxy.core.tokens import ALPHABET, MAX_TOKEN, Asset, Click, KeyRing, Open, Payload, Unsubscribe, peek
from brandproxy.errors import BadInput, BadToken
from brandproxy.model import SigningKey

VECTORS = json.loads((Path(__file__).parent.parent / "data" / "token-vectors.json").read_text())
TYPES = {"c": Click, "a": Asset, "o": Open, "u": Unsubscribe}

ring = KeyRing([SigningKey(3, b"s" * 32, 0)])
stranger = KeyRing([SigningKey(3, b"t" * 32, 0)])

texts = st.text(st.characters(exclude_categories=("Cs", "Cc")), max_size=80)
moments = st.integers(0, 1 << 40)
payloads = st.one_of(
    st.builds(Click, texts, texts, texts, texts, st.integers(0, 1 << 20), moments, st.booleans()),
    st.builds(Asset, texts, texts, texts),
    st.builds(Open, texts, texts, texts, moments),
    st.builds(Unsubscribe, texts, texts, texts, texts, texts, moments),
)


def kind_of(payload: Payload) -> str:
    return next(kind for kind, made in TYPES.items() if isinstance(payload, made))


def refusal(kind: str, token: str, keys: KeyRing = ring, now: int = 0) -> str:
    with pytest.raises(BadToken) as caught:
        keys.open(kind, token, now)
    return caught.value.reason


@pytest.mark.parametrize("vector", VECTORS["vectors"], ids=lambda v: f"{v['kind']}{v['key']}")
def test_every_token_ever_published_still_opens(vector: dict[str, Any]) -> None:
    keys = KeyRing([SigningKey(vector["key"], bytes.fromhex(VECTORS["secret"]), 0)])
    assert keys.open(vector["kind"], vector["token"]) == TYPES[vector["kind"]](**vector["payload"])


def test_the_vectors_hold_all_kinds_and_both_packings() -> None:
    assert {v["kind"] for v in VECTORS["vectors"]} == set(TYPES)
    assert {v["token"][0] for v in VECTORS["vectors"]} == {"A", "B"}


@given(payloads)
def test_what_is_minted_opens_as_it_was(payload: Payload) -> None:
    token = ring.mint(payload)
    assert ring.open(kind_of(payload), token) == payload
    assert peek(kind_of(payload), token) == payload
    assert set(token) <= set(string.ascii_letters + string.digits + "-_")


@given(payloads)
def test_the_same_payload_makes_the_same_token(payload: Payload) -> None:
    assert ring.mint(payload) == ring.mint(payload)


@given(payloads, st.data())
def test_one_changed_character_is_refused(payload: Payload, data: st.DataObject) -> None:
    token = ring.mint(payload)
    at = data.draw(st.integers(0, len(token) - 1))
    other = data.draw(st.sampled_from([char for char in ALPHABET if char != token[at]]))
    assert refusal(kind_of(payload), token[:at] + other + token[at + 1 :]) in ("forged", "malformed")


@given(payloads, st.sampled_from("caou"))
def test_a_token_of_another_kind_is_refused(payload: Payload, kind: str) -> None:
    if kind != kind_of(payload):
        assert refusal(kind, ring.mint(payload)) == "forged"


@given(payloads)
def test_a_token_of_another_tenant_is_refused(payload: Payload) -> None:
    assert refusal(kind_of(payload), stranger.mint(payload)) == "forged"


@given(payloads, st.data())
def test_a_truncated_token_is_refused(payload: Payload, data: st.DataObject) -> None:
    token = ring.mint(payload)
    cut = data.draw(st.integers(0, len(token) - 1))
    assert refusal(kind_of(payload), token[:cut]) in ("forged", "malformed")


@given(payloads, st.text(st.sampled_from(ALPHABET), min_size=1, max_size=8))
def test_a_token_with_more_at_its_end_is_refused(payload: Payload, more: str) -> None:
    assert refusal(kind_of(payload), ring.mint(payload) + more) == "forged"


@pytest.mark.parametrize("padding", ["=", "==", "%3D", " ", "\n", "\x00", ".", "/"])
def test_a_padded_token_is_refused(padding: str) -> None:
    token = ring.mint(Open("c"))
    assert refusal("o", token + padding) == "malformed"
    assert refusal("o", padding + token) == "malformed"


@given(st.text(max_size=300))
def test_any_text_at_all_is_refused(text: str) -> None:
    assert refusal("c", text) in ("forged", "malformed")


def test_non_ascii_look_alikes_are_refused() -> None:
    token = ring.mint(Click("https://acme.com/"))
    assert refusal("c", token[:5] + "а" + token[6:]) == "malformed"  # Cyrillic
    assert refusal("c", token[:5] + "１" + token[6:]) == "malformed"  # full-width digit


def test_an_over_long_token_is_refused_before_it_is_looked_at() -> None:
    assert refusal("c", "A" * (MAX_TOKEN + 1)) == "malformed"
    assert refusal("c", "A" * 10_000_000) == "malformed"


def test_a_token_has_one_spelling() -> None:
    """Base64 ends in bits that carry nothing: the MAC is over the text, so they cannot be played with."""
    token = ring.mint(Click("https://acme.com/a"))
    last = token[-1]
    others = [char for char in ALPHABET if char != last]
    assert all(refusal("c", token[:-1] + other) == "forged" for other in others)


def test_rotation_keeps_old_links_and_revocation_ends_them() -> None:
    old, new = SigningKey(0, b"o" * 32, 0), SigningKey(1, b"n" * 32, 0)
    token = KeyRing([old]).mint(Open("c"))
    assert KeyRing([new, old]).open("o", token) == Open("c")
    assert KeyRing([new, old]).mint(Open("c"))[1] == ALPHABET[1]
    assert refusal("o", token, KeyRing([new, SigningKey(0, b"o" * 32, 0, revoked_at=5)])) == "revoked"


def test_a_revoked_key_mints_nothing() -> None:
    with pytest.raises(BadInput):
        KeyRing([SigningKey(0, b"o" * 32, 0, revoked_at=5)]).mint(Open())


def test_tokens_age_only_when_the_tenant_says_so() -> None:
    key = SigningKey(0, b"o" * 32, 0)
    token = KeyRing([key]).mint(Open("c", sent_at=1000))
    assert KeyRing([key]).open("o", token, now=10**12) == Open("c", sent_at=1000)
    assert KeyRing([key], max_age=10).open("o", token, now=1010) == Open("c", sent_at=1000)
    assert refusal("o", token, KeyRing([key], max_age=10), now=1011) == "expired"


@pytest.mark.parametrize("bad", ["a\x1fb", "a\nb", "a\x00", "a\x7f", "\ud800"])
def test_fields_that_would_shift_others_are_refused(bad: str) -> None:
    with pytest.raises(BadInput):
        ring.mint(Click("https://acme.com/", bad))


def test_fields_too_long_for_a_token_are_refused() -> None:
    with pytest.raises(BadInput):
        ring.mint(Click("https://acme.com/" + "x" * 20_000))
    longest = Click("https://acme.com/" + "é" * 2000, "c" * 256, "m" * 256, "r" * 256, 9, 1 << 40)
    assert ring.open("c", ring.mint(longest)) == longest
