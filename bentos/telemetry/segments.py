"""Append-only segment files: what a process has logged, before it becomes Parquet.

    folder/<host-pid-start>/lock          held (flock) for as long as the writing process lives, released by any death
    folder/<host-pid-start>/000001.seg    the highest number of a live writer is open, all others are final

A segment is a magic word and frames: marker, length, CRC-32 over length and payload, payload (msgpack). The marker lets
a reader find the next frame after a damaged one. A tail cut off by a killed process is `torn`, which is no damage.
"""

import fcntl
import os
import queue
import re
import socket
import struct
import threading
import time
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

MAGIC = b"SRSEG\x00\x01\n"
MARKER = b"\xc1\x9eSR"  # 0xC1 is the one byte that msgpack never uses for a type
_HEAD = struct.Struct("<4sII")
LOCK = "lock"
_NAME = re.compile(r"\d{6,}\.seg")
# Time for which the writer gathers records before one `write`; also how late a reader may see them.
LINGER_S = 0.02
RETRY_S = 1.0
# A killed process loses what waits in memory (the linger); a power cut also what is younger than this.
SYNC_S = 1.0


@dataclass(frozen=True, slots=True)
class Counts:
    """Since the start. written: records in files; dropped: lost, the queue was full or the disk stayed full to the
    end; errors: failed writes (each is tried again); queued: waiting now."""

    written: int
    dropped: int
    errors: int
    queued: int


@dataclass(frozen=True, slots=True)
class Frames:
    """What a segment holds. corrupt: damaged stretches that were skipped; torn: the file ends inside a frame.

    end: bytes up to which all is read; a reader of a growing segment goes on from there.
    """

    payloads: tuple[bytes, ...]
    corrupt: int
    torn: bool
    end: int = 0


def frame(payload: bytes) -> bytes:
    length = len(payload)
    return _HEAD.pack(MARKER, length, _crc(length, payload)) + payload


def _crc(length: int, payload: bytes | memoryview) -> int:
    return zlib.crc32(payload, zlib.crc32(length.to_bytes(4, "little")))


def parse(data: bytes) -> Frames:
    """Frames of a segment. Never raises: whatever was written whole is found, in order."""
    if not data.startswith(MAGIC):
        torn = MAGIC.startswith(data)  # killed before the first word was out, or an empty file
        if torn:
            return Frames((), 0, bool(data))
    payloads: list[bytes] = []
    corrupt = 0
    at = len(MAGIC) if data.startswith(MAGIC) else 0
    view = memoryview(data)
    while at < len(data):
        payload = _frame_at(data, view, at)
        if payload is not None:
            payloads.append(payload)
            at += _HEAD.size + len(payload)
            continue
        following = _next_frame(data, view, at + 1)
        if following < 0:
            # Nothing whole follows. A frame that starts here and runs past the end was cut off; else it is damage.
            torn = _runs_past_the_end(data, at)
            return Frames(tuple(payloads), corrupt + (not torn), torn, at)
        corrupt += 1
        at = following
    return Frames(tuple(payloads), corrupt, False, at)


def _frame_at(data: bytes, view: memoryview, at: int) -> bytes | None:
    if at + _HEAD.size > len(data):
        return None
    marker, length, crc = _HEAD.unpack_from(data, at)
    start = at + _HEAD.size
    if marker != MARKER or start + length > len(data):
        return None
    payload = view[start : start + length]
    return bytes(payload) if _crc(length, payload) == crc else None


def _next_frame(data: bytes, view: memoryview, at: int) -> int:
    while (at := data.find(MARKER, at)) >= 0:
        if _frame_at(data, view, at) is not None:
            return at
        at += 1
    return -1


def _runs_past_the_end(data: bytes, at: int) -> bool:
    head = data[at : at + _HEAD.size]
    if len(head) < _HEAD.size:
        return MARKER.startswith(head[:4])
    marker, length, _ = _HEAD.unpack(head)
    return bool(marker == MARKER and at + _HEAD.size + length > len(data))


@dataclass(frozen=True, slots=True)
class Segment:
    path: Path
    final: bool  # no process will append to it

    @property
    def name(self) -> str:
        """Unique in the log: what its Parquet files are named after."""
        return f"{self.path.parent.name}-{self.path.stem}"


def segments(folder: Path) -> list[Segment]:
    """Every segment of every writer under `folder`, oldest writer's number first."""
    found: list[Segment] = []
    for directory in sorted(folder.iterdir()) if folder.exists() else ():
        lock = directory / LOCK
        if directory.name.startswith(".") or not lock.exists():
            continue
        alive = not _lock_is_free(lock)  # before the listing: a writer that ends in between only looks open
        try:
            paths = sorted(p for p in directory.iterdir() if _NAME.fullmatch(p.name))
        except FileNotFoundError:  # rolled and removed meanwhile
            continue
        found += [Segment(p, final=not alive or p != paths[-1]) for p in paths]
    return found


def _lock_is_free(path: Path) -> bool:
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return False
    else:
        return True
    finally:
        os.close(descriptor)


def remove_if_empty(directory: Path) -> None:
    """Remove the folder of a dead writer once its segments are gone."""
    if not _lock_is_free(directory / LOCK):
        return
    try:
        if {p.name for p in directory.iterdir()} <= {LOCK}:
            (directory / LOCK).unlink(missing_ok=True)
            directory.rmdir()
    except OSError:
        return  # someone else is at it


@dataclass
class _File:
    """The open segment. `end`: where the last whole write ended."""

    descriptor: int
    opened_at: float
    synced_at: float
    end: int = 0
    dirty: bool = False


@dataclass
class SegmentWriter:
    """Appends records from any thread without blocking; one thread of its own encodes and writes.

    Args:
        folder: of the log (`log/exposures`); the writer makes its own folder inside, on the first record.
        capacity: records that may wait. More are dropped and counted, so that a full disk costs no memory.
        max_bytes, max_age_s: a segment is closed when it has grown this big or old.
    """

    folder: Path
    capacity: int
    max_bytes: int = 16 << 20
    max_age_s: float = 300.0
    _queue: "queue.SimpleQueue[object | None]" = field(default_factory=queue.SimpleQueue)
    _written: int = 0
    _dropped: int = 0
    _errors: int = 0
    _in_hand: int = 0
    _problem: str | None = None
    _thread: threading.Thread | None = None
    _directory: Path | None = None
    _lock: int = -1
    _number: int = 0
    _file: _File | None = None
    _closing: threading.Event = field(default_factory=threading.Event)
    _starting: threading.Lock = field(default_factory=threading.Lock)

    def append(self, record: msgspec.Struct | bytes) -> bool:
        """Hand over a record, or one that is MessagePack already. False when it was dropped: the queue is full, or the
        writer is closed.
        """
        if self._queue.qsize() >= self.capacity or self._closing.is_set():
            self._dropped += 1
            if not self._closing.is_set() and self._problem is None:
                self._problem = f"{self.folder}: {self.capacity} records wait for the disk, more are dropped"
            return False
        self._queue.put(record)
        if self._thread is None:
            self._start()
        return True

    @property
    def healthy(self) -> str | None:
        """None, or why records are not reaching the disk. None again after the next write that succeeds."""
        return self._problem

    def counts(self) -> Counts:
        return Counts(self._written, self._dropped, self._errors, self._queue.qsize() + self._in_hand)

    def close(self, timeout_s: float = 5.0) -> None:
        """Write what is queued, close the segment, give the lock back. Idempotent."""
        self._closing.set()
        thread = self._thread
        if thread is None:
            return
        self._queue.put(None)
        thread.join(timeout_s)

    def _start(self) -> None:
        with self._starting:
            if self._thread is None:
                # Daemon: a process that forgets `close` must still be able to end.
                self._thread = threading.Thread(target=self._run, name=f"log-{self.folder.name}", daemon=True)
                self._thread.start()

    def _run(self) -> None:
        pending: list[bytes] = []
        done = False
        while not done or pending:
            if not done:
                records, done = self._take()
                pending += [frame(r if isinstance(r, bytes) else msgspec.msgpack.encode(r)) for r in records]
            self._in_hand = len(pending)
            try:
                self._write(pending)
            except OSError as error:
                self._errors += 1
                self._problem = f"{self.folder}: {error.strerror or error}"
                if done or self._closing.is_set():  # no second chance: the process is ending
                    self._dropped += len(pending) + self._discard()
                    self._in_hand = 0
                    break
                # While it waits, the bounded queue takes what comes. `pending` stays: an exposure is never sampled.
                self._closing.wait(RETRY_S)
                continue
            self._problem = None
            self._written += len(pending)
            pending = []
            self._in_hand = 0
        self._end_file()
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def _take(self) -> tuple[list[object], bool]:
        """Records that came within the linger, and whether the end was among them."""
        if self._in_hand:
            return [], False  # first get rid of what could not be written
        try:
            first = self._queue.get(timeout=1.0)
        except queue.Empty:
            return [], False
        if first is not None:
            self._closing.wait(LINGER_S)
        taken, done = ([first], False) if first is not None else ([], True)
        while len(taken) < 10_000:
            try:
                record = self._queue.get_nowait()
            except queue.Empty:
                break
            if record is None:
                done = True
            else:
                taken.append(record)
        return taken, done

    def _discard(self) -> int:
        lost = 0
        while True:
            try:
                lost += self._queue.get_nowait() is not None
            except queue.Empty:
                return lost

    def _write(self, frames: Sequence[bytes]) -> None:
        now = time.monotonic()
        file = self._file
        if file and (file.end >= self.max_bytes or now - file.opened_at >= self.max_age_s):
            self._end_file()
        elif file and os.fstat(file.descriptor).st_nlink == 0:
            self._end_file()  # the home was deleted under a running process: start again in a new one
        elif file and file.dirty and now - file.synced_at >= SYNC_S:
            os.fdatasync(file.descriptor)
            file.dirty, file.synced_at = False, now
        if not frames:
            return
        if self._file is None:
            self._begin_file(now)
        file = self._file
        assert file is not None  # noqa: S101 - for the type checker
        data = memoryview(b"".join(frames))
        try:
            while data:
                data = data[os.write(file.descriptor, data) :]
        except OSError:
            # Half a batch is out: take it back, so that the next try does not double its records.
            os.ftruncate(file.descriptor, file.end)
            raise
        file.end = os.lseek(file.descriptor, 0, os.SEEK_END)
        file.dirty = True

    def _begin_file(self, now: float) -> None:
        if self._directory is None or not self._directory.exists():
            self._directory = self._make_directory()
        self._number += 1
        path = self._directory / f"{self._number:06d}.seg"
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o640)
        try:
            os.write(descriptor, MAGIC)
        except OSError:
            os.close(descriptor)
            path.unlink(missing_ok=True)
            raise
        self._file = _File(descriptor, now, now, end=len(MAGIC))

    def _make_directory(self) -> Path:
        """The writer's folder with its lock held, in place by one rename: no reader sees it without its lock."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1
        self.folder.mkdir(parents=True, exist_ok=True)
        host = re.sub(r"[^A-Za-z0-9]", "_", socket.gethostname())[:32] or "host"
        name = f"{host}-{os.getpid()}-{time.time_ns() // 1000}"
        fresh = self.folder / f".{name}"
        fresh.mkdir()
        self._lock = os.open(fresh / LOCK, os.O_RDWR | os.O_CREAT, 0o640)
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        final = self.folder / name
        fresh.rename(final)
        return final

    def _end_file(self) -> None:
        file, self._file = self._file, None
        if file:
            try:
                os.fdatasync(file.descriptor)
            except OSError:
                self._errors += 1
            os.close(file.descriptor)


def read_payloads(folder: Path) -> Iterator[tuple[Segment, Frames]]:
    """Every segment that is there with its frames; one that is rolled away meanwhile is left out."""
    for segment in segments(folder):
        try:
            data = segment.path.read_bytes()
        except FileNotFoundError:
            continue
        yield segment, parse(data)
