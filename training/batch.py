"""Slates for many users at once, by the very funnel that serves: for the ladder's `batch` rung and for other tools.

Features of users and items come from a data set as of a moment T, never from the online store, so a run can be
repeated. Users are cut into shards; each is one task of one process, which writes one part. The parts are joined in the
order of the users, so the file does not depend on the number of processes.
"""

import atexit
import hashlib
import math
import multiprocessing
import os
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from threadpoolctl import threadpool_limits

from bentos.recommender.assemble import load_models
from bentos.recommender.funnel import Funnel
from bentos.recommender.slates import source_names
from bentos.recommender.types import Query
from contracts.dataset import DatasetConfig
from contracts.errors import ArtifactError, DataError, StreamRecError, UsageError
from contracts.rules import RulesDocument
from features.offline.items import item_features_as_of
from features.offline.log import open_log
from features.offline.states import user_states_as_of
from features.online.base import ItemSnapshot, OnlineStore, PrecomputedList, UserState
from registry.artifacts import Kind
from training.data import read

Stage = Literal["slate", "candidates"]
Segment = Literal["active", "lapsed", "new"]
SCHEMA = pa.schema(
    [
        ("user_id", pa.string()),
        ("item_id", pa.string()),
        ("rank", pa.int32()),
        ("score", pa.float32()),
        ("sources", pa.list_(pa.string())),
    ]
)
MAX_ID = 256
# Users of one task: enough that reading the log for their states is a small part of it.
_SHARD = 2_000
_ROW_GROUP = 131_072
_ACTIVE_US = 30 * 86_400_000_000


@dataclass(frozen=True, slots=True)
class Job:
    """What every process needs. `as_of_us`: features are from events strictly before it, and it is the query's now."""

    data: Path
    folders: Mapping[Kind, Path]
    rules: RulesDocument
    as_of_us: int
    k: int
    stage: Stage


@dataclass(frozen=True, slots=True)
class BatchResult:
    """snapshot: names this result by its content; degradations: slates by rung; segments: user → segment, where asked
    for."""

    out: Path
    snapshot: str
    as_of_us: int
    users: int
    rows: int
    seconds: float
    degradations: Mapping[str, int]
    segments: Mapping[str, Segment] = field(default_factory=dict)


def default_moment_us(data: Path) -> int:
    """Now, on the data set's clock: for a log that has ended, just after its last event.

    Raises:
        NotFound, DataError: no data set, or an empty one.
    """
    if DatasetConfig.read(data).clock == "wall":
        return time.time_ns() // 1000
    return read.log_end_us(data) + 1


def read_users(path: Path) -> list[str]:
    """User ids of a text file, one a line, each once, in order.

    Raises:
        UsageError: no such file, no text, an id that is too long, or none at all.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not UTF-8 text with one user id a line") from error
    users = list(dict.fromkeys(filter(None, map(str.strip, lines))))
    for number, user in enumerate(users, 1):
        if len(user) > MAX_ID or "\0" in user:
            raise UsageError(f"{path}: user id {number} is no id: {user[:40]!r}…")
    if not users:
        raise UsageError(f"{path} names no user")
    return users


def users_of(data: Path, as_of_us: int) -> list[str]:
    """Everybody with an event before `as_of_us`.

    Raises:
        DataError: nobody.
    """
    with open_log(data) as log:
        found = log.db.execute("SELECT DISTINCT user_id FROM log WHERE at_us < ? ORDER BY user_id", [as_of_us])
        users = [str(row[0]) for row in found.fetchall()]
    if not users:
        raise DataError(f"{data} has no event before {iso(as_of_us)}", next_command=f"streamrec data describe {data}")
    return users


def run(
    job: Job,
    users: Sequence[str],
    out: Path,
    *,
    processes: int = 1,
    progress: Callable[[int], None] = lambda _: None,
) -> BatchResult:
    """Write `out` with the columns of `SCHEMA`, by way of a temporary name. `progress` is told of finished users.

    Raises:
        ArtifactError: a model that the stage needs cannot be loaded: a batch has no reason to publish less than `full`.
        DataError, UsageError: the data set, or `out`, cannot be used.
    """
    began = time.perf_counter()
    out = out.absolute()
    if out.is_dir():
        raise UsageError(f"--out {out} is a folder; it must be a file")
    size = _shard_size(len(users), processes)
    shards = [users[i : i + size] for i in range(0, len(users), size)]
    degradations: Counter[str] = Counter()
    segments: dict[str, Segment] = {}
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        parts_folder = tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.parts-")
    except OSError as error:
        raise UsageError(f"cannot write beside {out}: {error.strerror or error}") from error
    with parts_folder as folder:
        parts = [Path(folder) / f"{i:06d}.parquet" for i in range(len(shards))]
        for shard, (kept, rungs) in zip(shards, _results(job, shards, parts, processes), strict=True):
            segments |= kept
            degradations += rungs
            progress(len(shard))
        joined = Path(folder) / "joined.parquet"
        rows, digest = _join(parts, joined, job)
        joined.replace(out)
    return BatchResult(
        out=out,
        snapshot=f"{datetime.fromtimestamp(job.as_of_us / 1e6, UTC):%Y%m%dT%H%M%SZ}-{digest[:12]}",
        as_of_us=job.as_of_us,
        users=len(users),
        rows=rows,
        seconds=time.perf_counter() - began,
        degradations=dict(degradations),
        segments=segments,
    )


def publish(result: BatchResult, store: OnlineStore, model: str) -> int:
    """Swap the slates of a result into the online store, all at once; returns for how many users.

    Raises:
        Unreachable: the store is away; its old lists stay.
    """
    lists = _Lists(result, model)
    store.publish_lists(result.snapshot, lists)
    return len(lists)


def _shard_size(users: int, processes: int) -> int:
    """At least a few shards for each process, so that none idles at the end."""
    return max(1, min(_SHARD, math.ceil(users / (4 * processes)))) if processes > 1 else _SHARD


Outcome = tuple[dict[str, Segment], Counter[str]]


def _results(job: Job, shards: Sequence[Sequence[str]], parts: Sequence[Path], processes: int) -> Iterator[Outcome]:
    if processes <= 1 or len(shards) == 1:
        worker = _Worker(job)
        yield from (worker.run(shard, part) for shard, part in zip(shards, parts, strict=True))
        return
    # spawn: a fork would copy DuckDB's and FAISS' threads in an unknown state.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(processes, len(shards)), context, initializer=_begin, initargs=(job,)) as pool:
        futures = [pool.submit(_run, shard, part) for shard, part in zip(shards, parts, strict=True)]
        try:
            for future in futures:
                yield future.result()
        except BrokenProcessPool as error:
            raise StreamRecError(
                "a batch process died, most likely for want of memory",
                next_command="the same command with --processes 1",
            ) from error
        finally:
            for future in futures:
                future.cancel()


_worker: "_Worker | None" = None


def _begin(job: Job) -> None:
    """In a fresh process: load once; end when the parent does, by whatever death."""
    global _worker
    parent = multiprocessing.parent_process()
    if parent is not None:

        def follow() -> None:
            parent.join()
            os._exit(1)

        threading.Thread(target=follow, daemon=True).start()
    # DuckDB's binding prints a page about leaks where an interpreter is taken down with such a thread: skip that.
    atexit.register(os._exit, 0)
    _worker = _Worker(job)


def _run(users: Sequence[str], part: Path) -> Outcome:
    assert _worker is not None  # noqa: S101 - the pool's initializer
    return _worker.run(users, part)


class _Worker:
    """One funnel with item features as of the moment."""

    def __init__(self, job: Job) -> None:
        models = load_models(job.folders, threads=1)
        needed = ("retrieval",) if job.stage == "candidates" else ("retrieval", "ranking")
        problems = [f"{part}: {why}" for part, why in models.problems.items() if part.split(".")[0] in needed]
        if problems:
            raise ArtifactError("; ".join(problems), next_command="streamrec models verify")
        self._job = job
        self._item_ids = list(models.catalogue.item_ids)
        self._ids = np.array(self._item_ids, dtype=object)
        self._funnel = Funnel(models, job.rules)
        columns = item_features_as_of(job.data, job.as_of_us, self._item_ids)
        self._funnel.set_items(ItemSnapshot("batch", self._item_ids, columns, dict.fromkeys(columns, job.as_of_us)))

    def run(self, users: Sequence[str], part: Path) -> Outcome:
        # One BLAS thread: processes share the cores, and the same sums come out however many there are.
        with threadpool_limits(1):
            return self._run(users, part)

    def _run(self, users: Sequence[str], part: Path) -> Outcome:
        states = user_states_as_of(self._job.data, users, self._job.as_of_us)
        segments: dict[str, Segment] = {}
        rungs: Counter[str] = Counter()
        with pq.ParquetWriter(part, SCHEMA, compression="zstd") as writer:
            columns = _Columns()
            for user in users:
                state = states.get(user) or UserState(user)
                segments[user] = _segment(state, self._job.as_of_us)
                rungs[self._answer(user, state, columns)] += 1
                if len(columns.item_ids) >= 100_000:
                    writer.write_table(columns.table())
                    columns = _Columns()
            writer.write_table(columns.table())
        return segments, rungs

    def _answer(self, user: str, state: UserState, columns: "_Columns") -> str:
        query = Query(f"batch-{user}", user, self._job.k, self._job.as_of_us, math.inf)
        if self._job.stage == "slate":
            slate = self._funnel.run(query, state)
            columns.add(user, slate.item_ids, slate.scores, slate.sources)
            return slate.degradation
        _, union = self._funnel.candidates(query, state)
        order = np.argsort(-union.retrieval, kind="stable")[: self._job.k]
        best = union.take(order)
        columns.add(user, self._ids[best.items].tolist(), best.retrieval.tolist(), source_names(best.brought))
        return "candidates"


class _Columns:
    """Rows in the making."""

    def __init__(self) -> None:
        self.users: list[str] = []
        self.item_ids: list[str] = []
        self.ranks: list[int] = []
        self.scores: list[float] = []
        self.sources: list[list[str]] = []

    def add(
        self, user: str, item_ids: Sequence[str], scores: Sequence[float], sources: Sequence[Sequence[str]]
    ) -> None:
        self.users += [user] * len(item_ids)
        self.item_ids += item_ids
        self.ranks += range(1, len(item_ids) + 1)
        self.scores += scores
        self.sources += map(list, sources)

    def table(self) -> pa.Table:
        return pa.table([self.users, self.item_ids, self.ranks, self.scores, self.sources], schema=SCHEMA)


def _segment(state: UserState, as_of_us: int) -> Segment:
    """`new`: nothing is known; `active`: an event in the last 30 days; `lapsed`: none since."""
    if not state.last:
        return "new"
    return "active" if as_of_us - state.last[0].timestamp_us <= _ACTIVE_US else "lapsed"


def _join(parts: Sequence[Path], out: Path, job: Job) -> tuple[int, str]:
    """Parts one after another into row groups of one size; rows, and a digest of them and of the moment."""
    columns = {name: hashlib.sha256() for name in ("user_id", "item_id", "score")}
    rows = 0
    schema = SCHEMA.with_metadata({"streamrec.as_of_us": str(job.as_of_us), "streamrec.stage": job.stage})
    with pq.ParquetWriter(out, schema, compression="zstd") as writer:
        for table in _groups(parts):
            writer.write_table(table.replace_schema_metadata(schema.metadata))
            rows += len(table)
            for name, digest in columns.items():
                digest.update("".join(f"{value}\0" for value in table[name].to_pylist()).encode())
    whole = hashlib.sha256(f"{job.as_of_us} {job.k} {job.stage} {job.rules.digest}".encode())
    for digest in columns.values():
        whole.update(digest.digest())
    return rows, whole.hexdigest()


def _groups(parts: Sequence[Path]) -> Iterator[pa.Table]:
    """The rows of all parts in tables of `_ROW_GROUP` rows, the last one shorter."""
    held = SCHEMA.empty_table()
    for part in parts:
        for batch in pq.ParquetFile(part).iter_batches():
            held = pa.concat_tables([held, pa.Table.from_batches([batch])])
            while len(held) >= _ROW_GROUP:
                yield held.slice(0, _ROW_GROUP).combine_chunks()
                held = held.slice(_ROW_GROUP)
    yield held.combine_chunks()


class _Lists(Mapping[str, PrecomputedList]):
    """The slates of a result by user, read row group by row group: the whole set need not fit in memory."""

    def __init__(self, result: BatchResult, model: str) -> None:
        self._result = result
        self._model = model
        column = pq.read_table(result.out, columns=["user_id"])["user_id"]
        self._users = len(column.unique())

    def __len__(self) -> int:
        return self._users

    def __iter__(self) -> Iterator[str]:
        return (user for user, _ in self._walk())

    def __getitem__(self, user: str) -> PrecomputedList:
        for found, made in self._walk():
            if found == user:
                return made
        raise KeyError(user)

    def items(self) -> Iterator[tuple[str, PrecomputedList]]:  # type: ignore[override]
        return self._walk()

    def _walk(self) -> Iterator[tuple[str, PrecomputedList]]:
        user = ""
        ids: list[str] = []
        scores: list[float] = []
        for batch in pq.ParquetFile(self._result.out).iter_batches(columns=["user_id", "item_id", "score"]):
            for next_user, item, score in zip(*(batch.column(i).to_pylist() for i in range(3)), strict=True):
                if next_user != user:
                    if ids:
                        yield user, self._list(user, ids, scores)
                    user, ids, scores = next_user, [], []
                ids.append(item)
                scores.append(score)
        if ids:
            yield user, self._list(user, ids, scores)

    def _list(self, user: str, ids: list[str], scores: list[float]) -> PrecomputedList:
        result = self._result
        segment = result.segments.get(user, "new")
        return PrecomputedList(tuple(ids), tuple(scores), result.snapshot, self._model, result.as_of_us, segment)


def iso(moment_us: int) -> str:
    return datetime.fromtimestamp(moment_us / 1e6, UTC).isoformat()
