"""The one exception tree.

Every error carries two things beside its message: what the caller should do
next (`action`), and, by its type, whether trying again can help: `Retryable`
(infrastructure was away, come back later) or `Final` (the same call will fail
the same way).
"""


class BrandproxyError(Exception):
    """Base of all errors of brandproxy. `str(error)` is one sentence; `action` says what to do next."""

    action: str = "Report this as a bug."

    def __init__(self, message: str, action: str = "") -> None:
        super().__init__(message)
        if action:
            self.action = action


class Retryable(BrandproxyError):
    """Something outside was away or busy; the same call may succeed later."""

    action = "Try again later."


class Final(BrandproxyError):
    """The same call will fail the same way; change the input or the settings first."""

    action = "Correct the input; trying again will not help."


class BadSettings(Final):
    action = "Correct the setting; `brandproxy config show` tells where each value comes from."


class BadInput(Final):
    """A value given by the caller breaks its rules (a host name, a slug, a reference)."""


class NotFound(Final):
    """No record under that name."""

    action = "List what exists (`brandproxy tenant list`, `brandproxy host list`) and use one of those names."


class Conflict(Final):
    """The name is taken, or the record changed under the caller."""

    action = "Read the present record, then decide."


class BadToken(Final):
    """A token that must not be followed. `reason` is one of the stable words in `core.tokens`."""

    action = "Do not follow it; answer with the error page."

    def __init__(self, reason: str) -> None:
        super().__init__(f"token refused: {reason}")
        self.reason = reason


class StoreUnavailable(Retryable):
    action = "Check that the store is up and reachable; what was being done was not done."


class Locked(Retryable):
    action = "Another node holds this lock; wait for it to finish or expire."


class SpoolFull(Retryable):
    action = "Free disk space or raise edge.spool_max_bytes; redirects go on, events are being lost."


class FetchRefused(Final):
    """Outbound HTTP to an address, host or URL that is not allowed; nothing was sent there."""

    action = "Use a public https address, or let your network in with `outbound.allow`."


class FetchTooLarge(Final):
    action = "Store a smaller object, or raise the limit (`assets.max_bytes`)."


class FetchFailed(Retryable):
    """The other side could not be reached, was too slow, or broke off."""

    action = "Check that the address answers from this machine."


def told(caught: BaseException) -> BrandproxyError | None:
    """What to tell the caller: an error of ours, also out of a task group, or a path the system refuses."""
    while isinstance(caught, BaseExceptionGroup) and len(caught.exceptions) == 1:
        caught = caught.exceptions[0]
    if isinstance(caught, OSError) and caught.filename is not None:
        return BadInput(f"{caught.strerror}: {caught.filename}", "Check that path and who may read and write it.")
    return caught if isinstance(caught, BrandproxyError) else None


def lines(caught: BaseException) -> str:
    """The same as text for a terminal: the error, and on a line of its own what to do next where that is known."""
    error = told(caught)
    return f"brandproxy: {caught}" if error is None else f"brandproxy: {error}\n  {error.action}"
