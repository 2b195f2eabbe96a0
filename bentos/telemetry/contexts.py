"""The context log: what a replay needs, sampled and droppable."""

import time
import zlib
from collections import OrderedDict
from pathlib import Path
from threading import Lock
from uuid import UUID

import msgspec
import pyarrow as pa

from bentos.telemetry.kinds import CONTEXTS, context_of_row
from bentos.telemetry.record_log import Hide, hidden
from bentos.telemetry.roll import log_folder, parquet_files, read
from bentos.telemetry.segments import Counts, SegmentWriter, read_payloads
from contracts.exposures import ContextRecord

_DAY_US = 86_400_000_000


class ContextLog:
    """
    Args:
        home: the log is `home/log/contexts`.
        share: of requests that are kept, chosen by a hash of the request id. rows_share, candidates_share: of those
            that are kept, how many with what the ranker read of the items shown, and with all candidates.
        capacity: records that may wait for the disk; past it they are dropped and counted.
        hide: what a user's id becomes in the log.
        ring: the newest records that stay in memory for `find`, as bytes: a tenth of what their strings would take.
    """

    def __init__(
        self,
        home: Path,
        share: float = 1.0,
        *,
        rows_share: float = 1.0,
        candidates_share: float = 0.0,
        capacity: int = 20_000,
        ring: int = 1_000,
        hide: Hide | None = None,
    ) -> None:
        self._home = home
        self._below = int(share * 2**32)
        self._rows_below = int(share * rows_share * 2**32)
        self._candidates_below = int(share * candidates_share * 2**32)
        self._writer = SegmentWriter(log_folder(home, CONTEXTS), capacity)
        self._hide = hide
        self._ring: OrderedDict[str, bytes] = OrderedDict()
        self._ring_size = ring
        self._ring_lock = Lock()

    def keeps(self, request_id: str) -> bool:
        """Whether the sample has this request: for the others no record needs to be made."""
        return zlib.crc32(request_id.encode()) < self._below

    def keeps_rows(self, request_id: str) -> bool:
        """Whether the record of this request is to have the ranker's rows."""
        return zlib.crc32(request_id.encode()) < self._rows_below

    def keeps_candidates(self, request_id: str) -> bool:
        """Whether the record of this request is to have all candidates with their scores."""
        return zlib.crc32(request_id.encode()) < self._candidates_below

    def append(self, record: ContextRecord) -> None:
        """Keep the record, if the sample has it. Never blocks, never raises."""
        if not self.keeps(record.request_id):
            return
        encoded = msgspec.msgpack.encode(hidden(record, self._hide) if self._hide else record)
        with self._ring_lock:
            self._ring[record.request_id] = encoded
            if len(self._ring) > self._ring_size:
                self._ring.popitem(last=False)
        self._writer.append(encoded)

    def find(self, request_id: str) -> ContextRecord | None:
        """The record of one request of any process, or None when it was sampled out, dropped or never was.

        Blocks on files unless the request was answered here of late: call it on a thread.
        """
        with self._ring_lock:
            recent = self._ring.get(request_id)
        if recent is None:
            return find_context(self._home, request_id)
        record: ContextRecord = CONTEXTS.decode(recent)
        return record

    @property
    def healthy(self) -> str | None:
        return self._writer.healthy

    def counts(self) -> Counts:
        return self._writer.counts()

    def close(self, timeout_s: float = 5.0) -> None:
        self._writer.close(timeout_s)


def find_context(home: Path, request_id: str) -> ContextRecord | None:
    """Look in the segments, then in the Parquet files of the request's day (a UUIDv7 tells it).

    Raises:
        DataError: the record has a schema that this code does not know.
    """
    folder = log_folder(home, CONTEXTS)
    wanted = request_id.encode()
    for _, frames in read_payloads(folder):
        for payload in frames.payloads:
            if wanted in payload:
                record: ContextRecord = CONTEXTS.decode(payload)
                if record.request_id == request_id:
                    return record
    started = _started_us(request_id)
    if started is not None and started > time.time_ns() // 1000 + _DAY_US:
        return None  # an id from the future names no request
    around = (started - _DAY_US, started + _DAY_US) if started is not None else (None, None)
    files = [str(p) for p in parquet_files(folder, *around)]
    if not files:
        return None
    import pyarrow.compute as pc
    import pyarrow.dataset as ds

    rows = ds.dataset(files, schema=CONTEXTS.arrow, format="parquet").to_table(
        filter=pc.field("request_id") == request_id
    )
    return context_of_row(rows.slice(0, 1).to_pylist()[0]) if len(rows) else None


def _started_us(request_id: str) -> int | None:
    """Creation time in a UUIDv7; None for any other id."""
    try:
        uuid = UUID(request_id)
    except ValueError:
        return None
    return (uuid.int >> 80) * 1000 if uuid.version == 7 else None


def read_contexts(home: Path, since_us: int | None = None, until_us: int | None = None) -> pa.Table:
    """All context records with `since_us` ≤ timestamp < `until_us` (wall clock), rolled or not, each once."""
    return read(home, CONTEXTS, since_us, until_us)
