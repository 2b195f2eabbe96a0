"""One user taken out of what the service keeps: logs of answers, events, online features, lists.

In this order, so that a killed run can be started again: what is to be (log/erasures.json), the events, the features
that they made, then the logs of answers. Models and snapshots are not changed; they are named, with what to do.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from bentos.telemetry.erasure import IDS, Erasure, ask, pending, settle
from bentos.telemetry.event_log import forget_events
from bentos.telemetry.kinds import KINDS, LogKind
from bentos.telemetry.roll import CORRUPT, log_folder, parquet_files, roll, roll_lock, write_parquet
from bentos.telemetry.segments import read_payloads
from contracts.errors import Unreachable
from contracts.settings import Settings
from contracts.user_keys import UserKeys
from features.online.open import open_store
from monitoring.privacy.elsewhere import kept_elsewhere

# A record may wait that long for a full disk, in the memory of the process that made it.
WAITING_US = 60_000_000


@dataclass(slots=True)
class Forgotten:
    """removed: what → how much. waiting: segments that live processes still write; they are rolled within minutes, and
    the records go then. stays: what holds the user and is not changed here, with what to do about it."""

    ids: int
    removed: dict[str, int] = field(default_factory=dict)
    waiting: int = 0
    stays: list[str] = field(default_factory=list)

    @property
    def done(self) -> bool:
        return not self.waiting


def forget(settings: Settings, user_id: str, now_us: int, *, dry_run: bool = False) -> Forgotten:
    """Everything about the user up to now. Again is the same; a user nobody knows is no error.

    Raises:
        Unreachable: the event log or the online store is away: nothing is half done that the next call would not do.
        NotFound, UsageError: of the file of user keys.
    """
    keys = UserKeys.of(settings.user_keys)
    ids = keys.every(user_id) if keys else [user_id]
    home = settings.home
    found = Forgotten(len(ids))
    erasure = Erasure(sorted(ids), now_us) if dry_run else ask(home, ids, now_us)
    found.removed["events"] = forget_events(home, user_id, event_log=settings.event_log, dry_run=dry_run)
    if not dry_run:
        store = open_store(settings)
        try:
            found.removed["online features, sessions and lists"] = store.forget_user(user_id)
        finally:
            store.close()
        erasure = ask(home, ids, now_us, events_gone=True)
    for kind in KINDS:
        found.removed[kind.name] = _log(home, kind, erasure, dry_run=dry_run)
    found.waiting = still_written(home, erasure)
    found.stays = kept_elsewhere(home, user_id)
    return found


def settled(home: Path, now_us: int) -> int:
    """Rolls, and ends the erasures that nothing is left to do for; how many are under way. One that was killed before
    the events were gone stays until `forget` is called again: what the user is called is known to its caller alone."""
    waiting = pending(home).pending
    if not waiting:
        return 0
    roll(home)
    done = []
    for one in waiting:
        gone = sum(_log(home, kind, one, dry_run=False) for kind in KINDS)
        over = one.events_gone and now_us - one.asked_us > WAITING_US
        if over and not gone and not still_written(home, one):
            done.append(one)
    settle(home, done)
    return len(waiting) - len(done)


def still_written(home: Path, one: Erasure) -> int:
    """Segments, open or not yet rolled, with a record that is to go."""
    n = 0
    for kind in KINDS:
        for _, frames in read_payloads(log_folder(home, kind)):
            n += any(_names(payload, one.ids) for payload in frames.payloads)
    return n


def _names(payload: bytes, ids: Sequence[str]) -> bool:
    """Whether the record may be theirs: MessagePack writes a string as it is, behind its length."""
    return any(msgspec.msgpack.encode(name) in payload for name in ids)


def _log(home: Path, kind: LogKind, one: Erasure, *, dry_run: bool) -> int:
    """Rows of the rolled log that are gone, or would be."""
    folder = log_folder(home, kind)
    if not folder.exists():
        return 0
    if not dry_run:
        roll(home, (kind,))
    gone = 0
    with roll_lock(folder) as ours:
        if not ours and not dry_run:
            raise Unreachable(f"another process is rolling {folder}", next_command="streamrec monitor forget USER")
        for path in parquet_files(folder):
            gone += _file(path, kind, one, dry_run=dry_run)
        for damaged in (folder / CORRUPT).glob("*.seg"):
            if any(name.encode() in damaged.read_bytes() for name in one.ids):
                gone += 1
                if not dry_run:
                    damaged.unlink()
    return gone


def _file(path: Path, kind: LogKind, one: Erasure, *, dry_run: bool) -> int:
    names = [name for name in IDS if name in kind.arrow.names]
    file = pq.ParquetFile(path)
    ids = pa.array(one.ids, pa.string())
    looked = file.read(columns=[*names, "timestamp_us"])
    theirs = pc.less_equal(looked["timestamp_us"], one.asked_us)
    named = pc.is_in(looked[names[0]], value_set=ids)
    for name in names[1:]:
        named = pc.or_(named, pc.is_in(looked[name], value_set=ids))
    theirs = pc.and_(theirs, named)
    n = int(pc.sum(theirs).as_py() or 0)
    if n and not dry_run:
        left = file.read().filter(pc.invert(theirs))
        if left.num_rows:
            write_parquet(left, path)
        else:
            path.unlink()
    return n
