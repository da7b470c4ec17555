"""The library's network, patient with nonces and remembering what errors drop; its errors in our tree."""

from __future__ import annotations

import time
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Any

import josepy as jose
import requests
from acme import errors, messages
from acme.client import ClientNetwork

from brandproxy.errors import Final, Retryable

_NONCES = 12  # tries after badNonce (RFC 8555 §6.5); at 30 % rejection one order in a million fails


class AcmeAway(Retryable):
    """The CA could not be reached, or failed by itself. `retry_in`: not before so many seconds; 0: not told."""

    action = "Nothing to do: the old certificate goes on being served, and it is tried again."

    def __init__(self, message: str, retry_in: float = 0) -> None:
        super().__init__(message)
        self.retry_in = retry_in


class AcmeRefused(Final):
    """The CA said no. `code` is the last part of the ACME error type (RFC 8555 §6.7)."""

    action = "Read the CA's words; `brandproxy dns HOST` tells what is wrong with the records."

    def __init__(self, message: str, code: str = "", retry_in: float = 0) -> None:
        super().__init__(message)
        self.code = code
        self.retry_in = retry_in


class Network(ClientNetwork):
    """The library's network, patient with nonces, and remembering what errors drop: Retry-After and Date."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.skew = 0.0
        self._headers: dict[str, str] = {}
        self.session.hooks["response"].append(self._remember)

    def post(self, *args: Any, **options: Any) -> requests.Response:
        for _ in range(_NONCES):
            try:
                return super().post(*args, **options)
            except messages.Error as error:
                if code_of(error) != "badNonce":
                    raise
        return super().post(*args, **options)

    def retry_in(self) -> float:
        """Seconds that the last answer asked to wait; 0 when it did not (RFC 9110 §10.2.3)."""
        value = self._headers.get("Retry-After", "")
        wait = int(value) if value.isascii() and value.isdigit() else date_of(value) - time.time()
        return float(min(max(wait, 0), 30 * 86400))

    def begin(self) -> None:
        """Forget the last answer's wishes."""
        self._headers = {}

    def _remember(self, answer: requests.Response, **_: Any) -> None:
        self._headers = dict(answer.headers)
        told = date_of(answer.headers.get("Date", ""))
        self.skew = told - time.time() if told else self.skew


class NewOrder(messages.NewOrder):
    replaces: str | None = jose.field("replaces", omitempty=True)  # RFC 9773 §5; the library has no such field


class KeyChange(jose.JSONObjectWithFields):
    account: str = jose.field("account")
    old_key: Any = jose.field("oldKey")


def translated(error: Exception, url: str, retry_in: float) -> AcmeAway | AcmeRefused:
    """The library's errors in our tree."""
    if isinstance(error, messages.Error):
        code = code_of(error)
        if code in ("serverInternal", "badNonce"):
            return AcmeAway(f"the CA {url} failed: {error.detail}", retry_in)
        return AcmeRefused(f"the CA refused: {error.detail}", code, retry_in)
    if isinstance(error, errors.ConflictError):
        return AcmeRefused("the CA knows that already", "conflict")
    return AcmeAway(f"the CA {url} is away: {error!r:.300}", retry_in)


def code_of(error: messages.Error) -> str:
    return str(error.typ or "").rpartition(":")[2]


def seconds(text: str) -> int:
    return int(datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp())


def date_of(text: str) -> float:
    try:
        return parsedate_to_datetime(text).timestamp() if text else 0.0
    except (ValueError, TypeError):
        return 0.0
