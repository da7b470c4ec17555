"""The cache's part on disk, shared by all worker processes of a machine.

Invariant: a file under its final name is whole. It is written beside, flushed, and renamed; its footer tells
the lengths, and a file that does not add up (a crash, a full disk, a bad sector) is removed, not served.

log = logging.getLogger(__name__)

    cache/<tenant>/<object, 2 digits>/<object>.<form>    body, JSON, footer: length of the JSON, `_MAGIC`
    cache/.tmp/     files being written, folders to be removed        cache/.lock/    who is fetching what

`<object>` hashes origin name and path, `<form>` the storage's URL, coding and variant: an object is purged in
all its forms by its name. The modification time is when storage last confirmed it, shared by the workers; the
access time is set by us, for eviction of what was not asked for longest.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import logging
import math
import os
import shutil
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from brandproxy.core.delivery import Meta

log = logging.getLogger(__name__)

_MAGIC = b"bpcache1"
_FOOTER = struct.Struct(">I8s")
_TOUCH_EVERY = 3600.0
_ABANDONED = 3600.0
_SWEPT_FOR = 240.0  # seconds within which another process's sweep will do


@dataclass(frozen=True, slots=True)
class Name:
    """Where an object in one form is kept."""

    tenant: str
    object: str
    form: str

    @property
    def text(self) -> str:
        return f"{self.tenant}/{self.object[:2]}/{self.object}.{self.form}"


class File:
    """An open descriptor shared by readers, closed when the last one lets go. `scratch`: where it lies until
    it has a name; removed when it never gets one."""

    __slots__ = ("descriptor", "scratch")

    def __init__(self, descriptor: int, scratch: Path | None = None) -> None:
        self.descriptor = descriptor
        self.scratch = scratch

    def discard(self) -> None:
        """Give up the scratch file; its bytes stay readable here until the descriptor is closed."""
        if self.scratch is not None:
            _unlink(self.scratch)
            self.scratch = None

    def __del__(self) -> None:
        self.discard()
        os.close(self.descriptor)


@dataclass(frozen=True, slots=True)
class Kept:
    """An object found on disk: the open file, what is known, when it was fetched and confirmed (seconds)."""

    file: File
    meta: Meta
    fetched_at: float
    confirmed_at: float


def name(tenant: str, origin: str, path: str, *form: str) -> Name:
    return Name(tenant, object_name(origin, path), _hash(*form)[:16])


def object_name(origin: str, path: str) -> str:
    return _hash(origin, path)[:40]


class Disk:
    """All calls block; they belong in a thread."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._tmp = folder / ".tmp"
        self._locks = folder / ".lock"
        self.added = 0  # bytes this process published since its last sweep

    def start(self) -> None:
        """Make the folders; on a disk that takes no writes what is there is served, and links go on."""
        try:
            for folder in (self._tmp, self._locks):
                folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            log.error("asset cache: %s: %s", self._folder, error)

    def find(self, name: Name) -> Kept | None:
        path = self._folder / name.text
        try:
            file = File(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
        except OSError:
            return None
        try:
            return self._read(path, file)
        except (ValueError, KeyError, TypeError, struct.error, OSError):
            _unlink(path)
            return None

    def _read(self, path: Path, file: File) -> Kept:
        descriptor = file.descriptor
        found = os.fstat(descriptor)
        end = found.st_size - _FOOTER.size
        length, magic = _FOOTER.unpack(os.pread(descriptor, _FOOTER.size, max(0, end)))
        if magic != _MAGIC or length > end:
            raise ValueError("not whole")
        about = json.loads(os.pread(descriptor, length, end - length))
        meta = Meta(**about["meta"])
        if meta.size != end - length:
            raise ValueError("not whole")
        now = time.time()
        if now - found.st_atime > _TOUCH_EVERY:
            os.utime(path, (now, found.st_mtime))
        return Kept(file, meta, about["fetched_at"], found.st_mtime)

    def scratch(self) -> File:
        """An empty file that nobody finds; `publish` gives its bytes a name."""
        path = self._tmp / f"{os.getpid()}.{time.monotonic_ns()}.{os.urandom(4).hex()}"
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        return File(os.open(path, flags, 0o600), path)

    def publish(self, file: File, name: Name, meta: Meta, fetched_at: float) -> None:
        """Make the bytes of a scratch file the object `name`. Raises OSError."""
        assert file.scratch is not None
        about = json.dumps({"meta": asdict(meta), "fetched_at": fetched_at}).encode()
        os.pwrite(file.descriptor, about + _FOOTER.pack(len(about), _MAGIC), meta.size)
        os.fdatasync(file.descriptor)
        os.utime(file.descriptor, (time.time(), fetched_at))
        path = self._folder / name.text
        path.parent.mkdir(exist_ok=True, parents=True, mode=0o700)
        os.replace(file.scratch, path)
        file.scratch = None
        self.added += meta.size

    def confirm(self, name: Name, at: float) -> None:
        """Storage said at `at` that the copy is still right."""
        try:
            os.utime(self._folder / name.text, (at, at))
        except OSError:
            pass

    def forget(self, tenant: str, object_: str = "", before: float = math.inf) -> None:
        """Remove an object in all its forms, or all of a tenant's, as far as fetched before a time.

        Quick unless a time is given: a tenant's folder is moved away whole, and emptied by `sweep`.
        """
        folder = self._folder / tenant
        if not object_ and before == math.inf:
            try:
                os.replace(folder, self._tmp / f"{tenant}.{os.getpid()}.{time.monotonic_ns()}")
            except OSError:
                pass  # nothing there, or another process was faster
            return
        for path in folder.glob(f"{object_[:2]}/{object_}.*" if object_ else "*/*"):
            kept = self.find(Name(tenant, *path.name.split(".", 1))) if before < math.inf else None
            if kept is None or kept.fetched_at <= before:
                _unlink(path)

    @contextmanager
    def lock(self, name: Name) -> Iterator[bool]:
        """Whether this process may fetch `name` now; held for the block. Ends with the process that held it.

        The file stays in the block only: whoever holds the lock removes it, and a lock on a removed file
        does not count.
        """
        path = self._locks / name.text.replace("/", ".")
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            held = _try_lock(descriptor) and _same(descriptor, path)
            try:
                yield held
            finally:
                if held:
                    _unlink(path)
        finally:
            os.close(descriptor)

    def sweep(self, limit: int, keep: float, urgent: bool = True) -> int:
        """Bring the disk under `limit` bytes and drop what nobody asked for in `keep` seconds; bytes kept.

        One process at a time does it: 0 when another one is at it, or, unless `urgent`, did it a moment ago.
        """
        descriptor = os.open(self._folder / ".sweep", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            found = os.fstat(descriptor)
            recent = found.st_size > 0 and time.time() - found.st_mtime < _SWEPT_FOR
            if not _try_lock(descriptor) or (recent and not urgent):
                return 0
            self.added = 0
            kept = self._sweep(limit, time.time() - keep)
            os.pwrite(descriptor, b"%20d\n" % kept, 0)
            return kept
        finally:
            os.close(descriptor)

    def _sweep(self, limit: int, oldest: float) -> int:
        files = [(found.st_atime, found.st_blocks * 512, path) for found, path in self._files()]
        total = sum(size for _, size, _ in files)
        target = limit if total <= limit else limit * 9 // 10
        for used, size, path in sorted(files):
            if total <= target and used >= oldest:
                break
            _unlink(path)
            total -= size
        abandoned = time.time() - _ABANDONED
        for path in (*self._tmp.iterdir(), *self._locks.iterdir()):
            try:
                if path.is_dir():
                    shutil.rmtree(path, ignore_errors=True)
                elif path.stat().st_mtime < abandoned:
                    _unlink(path)
            except OSError:
                pass
        return total

    def _files(self) -> Iterator[tuple[os.stat_result, Path]]:
        for path in self._folder.glob("[!.]*/*/*"):
            try:
                yield path.stat(), path
            except OSError:
                continue


def _hash(*parts: str) -> str:
    return hashlib.sha256("\x1f".join(parts).encode("utf-8", "surrogatepass")).hexdigest()


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            return False
        raise
    return True


def _same(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except OSError:
        return False


def _unlink(path: Path) -> None:
    try:
        path.unlink()
    except OSError:
        pass
