"""RFC 8058 one-click: the recipient's POST is on disk before it is answered, and forwarded until it arrives.

The queue is a spool of its own (`data/unsubscribe`): every worker appends, one process forwards (it holds
`forwarder.lock`). How far each segment is done stands in `progress.json`, so that a restart repeats at most what
was in flight; the endpoint sees a wish once as a rule, and twice rather than never.

A forwarded POST is judged in this order:
1. 2xx, 302, 303: arrived (RFC 8058 forbids the redirect, but the endpoint has seen the POST; it is not followed)
2. no answer, 408, 425, 429, 5xx, other 3xx: again, after 5 s doubling to 15 min, for three days
3. anything else, or three days over: set aside in `failed/` for the operator, with an error in the log
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import fcntl
import json
import logging
import os
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

from brandproxy import spool
from brandproxy.core import urls
from brandproxy.errors import BadInput, BrandproxyError, FetchRefused

log = logging.getLogger(__name__)

Post = Callable[[str, bytes, str], Awaitable[int]]  # (url, body, content type) to the status

_POLL = 0.5  # seconds between looks at the queue
_AT_ONCE, _AT_ONE_ENDPOINT = 16, 2  # forwards in flight; a slow endpoint holds up no other's
_HELD = 10_000  # wishes in memory; more wait on disk
_STEP = 500  # records read at once
_SAME = 10.0  # seconds in which a token's wish is the same wish
_FIRST_RETRY, _LAST_RETRY, _GIVE_UP = 5.0, 900.0, 3 * 86400.0
_ARRIVED = (302, 303)
_AGAIN = (408, 425, 429)


def is_one_click(body: bytes) -> bool:
    """RFC 8058 §3.2: the POST must say so, whether urlencoded or multipart; a scanner's empty POST does not."""
    return b"List-Unsubscribe" in body and b"One-Click" in body


def encode(url: str, body: bytes, kind: str, at: float) -> bytes:
    return json.dumps([1, at, url, kind, base64.b64encode(body).decode("ascii")]).encode("utf-8")


class Recent:
    """Wishes queued within `_SAME` seconds, by token: who repeats one shares its fate and fills no queue. One that
    could not be kept is shared by nobody.

    Seconds only: after them the same token may well be a new wish, of somebody who had subscribed again.
    """

    def __init__(self) -> None:
        self._queued: dict[str, tuple[float, spool.Commit]] = {}

    def get(self, token: str, now: float) -> spool.Commit | None:
        until, wish = self._queued.get(token, (0.0, None))
        return None if wish is None or wish.lost or until <= now else wish

    def add(self, token: str, wish: spool.Commit, now: float) -> None:
        if len(self._queued) >= _HELD:
            self._queued.clear()
        self._queued[token] = now + _SAME, wish


@dataclass(slots=True)
class Wish:
    """One POST on its way. `end` is the offset behind it in its segment."""

    url: str
    body: bytes
    kind: str
    at: float
    end: int
    due: float = 0.0
    delay: float = _FIRST_RETRY
    done: bool = False


@dataclass(slots=True)
class _Progress:
    """A segment being worked on: read up to `read`, wholly done up to `done`."""

    read: int
    done: int
    wishes: list[Wish] = field(default_factory=list)


class Forwarder:
    def __init__(self, directory: Path, post: Post, now: Callable[[], float] = time.time) -> None:
        self._directory = directory
        self._post = post
        self._now = now
        self._segments: dict[str, _Progress] = {}
        self._foreign: set[str] = set()  # segments that cannot be read
        self._flying: dict[asyncio.Task[None], str] = {}  # to the endpoint's host

    async def run(self) -> None:
        """Forward for ever. Waits while another process of this machine does."""
        lock = await self._lock_file()
        try:
            while True:
                try:
                    if _locked(lock):  # again each time is harmless: the lock is ours already
                        await self.turn()
                except OSError:  # a full disk, say
                    log.exception("unsubscribe: the queue cannot be worked on, trying again")
                    await asyncio.sleep(_FIRST_RETRY)
                await asyncio.sleep(_POLL)
        finally:
            os.close(lock)

    async def _lock_file(self) -> int:
        while True:
            try:
                self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
                return os.open(self._directory / "forwarder.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            except OSError as error:  # a read-only disk, say: links go on, and so does this when it can
                log.error("unsubscribe: nothing can be forwarded: %s", error)
                await asyncio.sleep(_FIRST_RETRY)

    async def turn(self) -> None:
        """One look at the queue: take in what is new, try what is due, note what is done."""
        before = _load(self._directory / "progress.json")
        found = await asyncio.to_thread(spool.segments, self._directory)
        segments = [segment for segment in found if segment.id not in self._foreign]
        for segment in list(segments):
            start = before.get(segment.id, 0)
            progress = self._segments.setdefault(segment.id, _Progress(start, start))
            if sum(len(p.wishes) for p in self._segments.values()) < _HELD:
                try:
                    await asyncio.to_thread(_take_in, segment, progress)
                except BadInput:  # of a newer version: left for it
                    log.exception("unsubscribe: segment %s is left alone", segment.id)
                    self._foreign.add(segment.id)
                    segments.remove(segment)
        self._start_due()
        await asyncio.wait(self._flying, timeout=_POLL) if self._flying else None
        for segment in segments:
            await asyncio.to_thread(self._settle, segment, self._segments[segment.id])
        self._segments = {s.id: self._segments[s.id] for s in segments if s.id in self._segments}
        after = {name: progress.done for name, progress in self._segments.items() if progress.done}
        if after != before:
            await asyncio.to_thread(_save, self._directory / "progress.json", after)

    def _start_due(self) -> None:
        now = self._now()
        for wish in [w for p in self._segments.values() for w in p.wishes if not w.done and w.due <= now]:
            hosts = list(self._flying.values())
            host = urls.host_of(wish.url)
            if len(hosts) >= _AT_ONCE:
                return
            if hosts.count(host) < _AT_ONE_ENDPOINT:
                wish.due = float("inf")  # until this attempt has ended
                task = asyncio.create_task(self._try(wish))
                self._flying[task] = host
                task.add_done_callback(self._flying.pop)

    async def _try(self, wish: Wish) -> None:
        try:
            status = await self._post(wish.url, wish.body, wish.kind)
        except FetchRefused as error:
            self._set_aside(wish, str(error))
            return
        except BrandproxyError as error:
            status, reason = 0, str(error)
        except Exception as error:  # whatever it is, the wish stays
            log.exception("unsubscribe: forwarding failed")
            status, reason = 0, repr(error)
        else:
            reason = f"status {status}"
        if 200 <= status < 300 or status in _ARRIVED:
            wish.done = True
        elif 400 <= status < 500 and status not in _AGAIN:
            self._set_aside(wish, reason)
        elif self._now() - wish.at > _GIVE_UP:
            self._set_aside(wish, f"given up after three days: {reason}")
        else:
            wish.due, wish.delay = self._now() + wish.delay, min(wish.delay * 2, _LAST_RETRY)
            log.warning("unsubscribe: an endpoint did not take a POST, trying again: %s", reason)

    def _settle(self, segment: spool.Segment, progress: _Progress) -> None:
        while progress.wishes and progress.wishes[0].done:
            progress.done = progress.wishes.pop(0).end
        if segment.sealed and not progress.wishes and not spool.read(segment, progress.read, 1).records:
            spool.remove(segment)
            del self._segments[segment.id]

    def _set_aside(self, wish: Wish, why: str) -> None:
        log.error("unsubscribe: a wish could not be forwarded and is set aside: %s", why)
        folder = self._directory / "failed"
        try:
            folder.mkdir(mode=0o700, exist_ok=True)
            with (folder / f"{time.strftime('%Y-%m-%d', time.gmtime(wish.at))}.jsonl").open("ab") as file:
                file.write(encode(wish.url, wish.body, wish.kind, wish.at) + b"\n")
        except OSError:
            log.exception("unsubscribe: nor can it be set aside; it stays in the queue")
            wish.due = self._now() + _LAST_RETRY
        else:
            wish.done = True


def _take_in(segment: spool.Segment, progress: _Progress) -> None:
    while len(progress.wishes) < _HELD:
        batch = spool.read(segment, progress.read, _STEP)
        if batch.start + sum(map(spool.size, batch.records)) != batch.end:  # damage between: learn each one's end
            batch = spool.read(segment, progress.read, 1)
        if not batch.records:
            return
        end = batch.end - sum(map(spool.size, batch.records))
        for record in batch.records:
            end += spool.size(record)
            try:
                progress.wishes.append(_decode(record, end))
            except BadInput:
                log.exception("unsubscribe: a record of segment %s cannot be read", segment.id)
        progress.read = batch.end


def _decode(record: bytes, end: int) -> Wish:
    try:
        version, at, url, kind, body = json.loads(record)
        if version != 1:
            raise ValueError(f"version {version}")
        return Wish(url, base64.b64decode(body), kind, at, end)
    except (ValueError, TypeError, binascii.Error) as error:
        raise BadInput(f"no queued unsubscribe: {error}") from error


def _load(path: Path) -> dict[str, int]:
    try:
        found = json.loads(path.read_bytes())
    except (FileNotFoundError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _save(path: Path, progress: dict[str, int]) -> None:
    fresh = path.with_name(f".{path.name}")
    fresh.write_text(json.dumps(progress))
    os.replace(fresh, path)


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
