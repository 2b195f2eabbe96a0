"""What was served as a table: one row for each item of each answer, in the shape of features/frame.py.

Beside the features, as the ranker read them: `timestamp` (wall clock), `clock` (the data set's), `request_id`,
`user_id`, `item_id`, `position` (from 1), `score`, `sources`, `degradation`, `ranked_by`, `served` (variant),
`bento`, `retrieval`, `ranking`, `fallback`, `rules`, `feature_hash`, `item_snapshot`, `logged`, and for each feature of
the registry `default.NAME` and `age_s.NAME`.

`logged` says whether the row's features were kept (`log_contexts`, `log_rows`, the first 20 items); elsewhere they are
null because nobody knows them, not because they were missing: judge features on the rows where it holds. The exposure
is never sampled, so the other columns are those of everything that was shown.
"""

import json
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from bentos.telemetry.kinds import CONTEXTS, EXPOSURES
from contracts.serving import SOURCES
from features.frame import REGISTERED, SCHEMA, feature_columns
from features.registry import REGISTRY
from monitoring.frames.log_files import LogFiles

REQUESTS_AT_ONCE = 2_000
AT_MOST = 1_000_000
# An exposure and its context are of one answer, written by two processes.
APART_US = 30_000_000
AGE = "age_s."
PROBLEMS = b"streamrec.problems"
_DEFINED = pa.array(sorted(definition.name for definition in REGISTRY))
_WIDTH = len(SCHEMA.columns)
_SIGNATURE = SCHEMA.signature
_EXPOSURES = (
    "request_id",
    "timestamp_us",
    "clock_us",
    "user_id",
    "served",
    "outcome",
    "degradation",
    "item_ids",
    "versions",
)
_CONTEXTS = (
    "request_id",
    "timestamp_us",
    "context",
    "features",
    "top_item_ids",
    "top_scores",
    "ranked_by",
    "shown",
)
_VERSIONS = {
    "bento": "bento",
    "retrieval": "retrieval",
    "ranking": "ranking",
    "fallback": "fallback",
    "rules": "rules",
    "features": "feature_hash",
    "item_snapshot": "item_snapshot",
}


@dataclass(slots=True)
class Window:
    """Counts grow and problems gather as `batches` is read. places: only so many items of each answer, the first; None:
    all. answers: with at least one item; with_context, with_rows:
    of them, those whose context record was found, and had the ranker's rows."""

    exposures: LogFiles
    contexts: LogFiles
    places: int | None = None
    answers: int = 0
    rows: int = 0
    with_context: int = 0
    with_rows: int = 0
    _problems: dict[str, int] = field(default_factory=dict)

    @classmethod
    def open(
        cls, home: Path, since_us: int | None = None, until_us: int | None = None, *, places: int | None = None
    ) -> "Window":
        """The answers with `since_us` ≤ timestamp < `until_us`, wall clock; None: no bound."""
        earlier = None if since_us is None else since_us - APART_US
        later = None if until_us is None else until_us + APART_US
        return cls(
            LogFiles.open(home, EXPOSURES, _EXPOSURES, since_us, until_us),
            LogFiles.open(home, CONTEXTS, _CONTEXTS, earlier, later),
            places,
        )

    @property
    def problems(self) -> list[str]:
        counted = [f"{what} ({n} answers)" for what, n in self._problems.items()]
        return [*self.exposures.problems, *self.contexts.problems, *counted]

    def batches(self) -> Iterator[pa.Table]:
        """Tables of the answers of up to 2,000 requests each: about 20 MB."""
        for table in self.exposures.tables():
            answered = table.filter(pc.equal(table["outcome"], "ok")).sort_by("timestamp_us")
            if self.places is not None:
                first = pc.list_slice(answered["item_ids"], 0, self.places)
                answered = answered.set_column(answered.column_names.index("item_ids"), "item_ids", first)
            for at in range(0, answered.num_rows, REQUESTS_AT_ONCE):
                yield self._rows(answered.slice(at, REQUESTS_AT_ONCE).combine_chunks())

    def _rows(self, asked: pa.Table) -> pa.Table:
        contexts = self._contexts(asked)
        n = asked.num_rows
        items = asked["item_ids"].combine_chunks()
        lengths = _lengths(items)
        parent = np.repeat(np.arange(n), lengths)
        place = np.arange(len(parent)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        item_ids = items.flatten()
        rows, words, logged, scores = self._shown(contexts, item_ids, parent, place)
        scores = self._top_scores(contexts, item_ids, parent, scores)
        flags, ages = _said_of_features(contexts)
        for name, n_answers in _unknown_features(contexts).items():
            self._note(f"a new feature that this version does not know, `{name}`, was left out", n_answers)
        of_request = pa.array(parent)
        context = contexts["context"].combine_chunks()
        for name in ("country", "device"):
            words[name] = pc.map_lookup(context, name, "first").take(of_request).to_pylist()
        known = pc.is_valid(contexts["request_id"])
        self.answers += n
        self.rows += len(parent)
        self.with_context += pc.sum(known).as_py() or 0
        self.with_rows += len(np.unique(parent[logged]))
        versions = asked["versions"].combine_chunks()

        def each(column: pa.Array | pa.ChunkedArray) -> pa.Array:
            whole = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
            return whole.take(of_request)

        utc = pa.timestamp("us", tz="UTC")
        return pa.table(
            {
                "timestamp": each(asked["timestamp_us"]).cast(utc),
                "clock": each(asked["clock_us"]).cast(utc),
                "request_id": each(asked["request_id"]),
                "user_id": each(asked["user_id"]),
                "item_id": item_ids,
                "position": pa.array(place + 1, pa.int32()),
                "score": pa.array(scores, pa.float32(), mask=np.isnan(scores)),
                "sources": _sources(rows, logged),
                "degradation": each(asked["degradation"]),
                "ranked_by": each(contexts["ranked_by"]),
                "served": each(asked["served"]),
                **{column: each(pc.struct_field(versions, name)) for name, column in _VERSIONS.items()},
                "logged": pa.array(logged, pa.bool_()),
                **feature_columns(rows, words, {name: each(flag) for name, flag in flags.items()}),
                **{AGE + name: each(age) for name, age in ages.items()},
            }
        )

    def _contexts(self, asked: pa.Table) -> pa.Table:
        """Aligned with `asked`; a row of nulls where there is no context."""
        tables = []
        if asked.num_rows:
            stamps = asked["timestamp_us"]
            tables = self.contexts.around(pc.min(stamps).as_py() - APART_US, pc.max(stamps).as_py() + APART_US)
        empty = pa.schema([CONTEXTS.arrow.field(name) for name in _CONTEXTS]).empty_table()
        wanted = [t.filter(pc.is_in(t["request_id"], value_set=asked["request_id"])) for t in tables]
        found = pa.concat_tables(wanted) if wanted else empty
        at = pc.index_in(asked["request_id"], value_set=found["request_id"].combine_chunks())
        return found.take(at)

    def _shown(
        self, contexts: pa.Table, item_ids: pa.Array, parent: NDArray[np.int64], place: NDArray[np.int64]
    ) -> tuple[NDArray[np.float32], dict[str, Sequence[str | None]], NDArray[np.bool_], NDArray[np.float32]]:
        """Rows float32 [R, F] (NaN where none was kept), categories, whether there is one, and scores."""
        shown = contexts["shown"].combine_chunks()
        ids, blobs = pc.struct_field(shown, "item_ids"), pc.struct_field(shown, "rows").to_pylist()
        counts = _lengths(ids)
        signatures = pc.struct_field(shown, "signature").to_pylist()
        for at, (blob, signature) in enumerate(zip(blobs, signatures, strict=True)):
            if blob is None:
                continue
            if not _SIGNATURE.startswith(signature or "-"):
                self._note("rows of another row signature were left out")
            elif len(blob) != counts[at] * _WIDTH * 4:
                self._note("rows of the wrong length were left out")
            else:
                continue
            blobs[at] = None
        there = np.array([blob is not None for blob in blobs], bool)
        usable = np.where(there, counts, 0)
        kept = np.frombuffer(b"".join(blob for blob in blobs if blob is not None), "<f4").reshape(-1, _WIDTH)
        first = np.cumsum(usable) - usable
        logged = place < usable[parent]
        ours = pa.array(np.flatnonzero(there))
        flat = (first[parent] + place)[logged]
        same = pc.equal(ids.take(ours).flatten().take(pa.array(flat)), item_ids.filter(pa.array(logged)))
        different = ~np.asarray(pc.fill_null(same, False).to_numpy(zero_copy_only=False), bool)
        if different.any():
            self._note(
                "other items were logged by the Bento than were exposed", len(np.unique(parent[logged][different]))
            )
            flat = flat[~different]
            logged[np.flatnonzero(logged)[different]] = False
        rows = np.full((len(parent), _WIDTH), np.nan, np.float32)
        rows[logged] = kept[flat]
        words = pc.struct_field(shown, "categories").take(ours).flatten().take(pa.array(flat)).to_pylist()
        categories: list[str | None] = [None] * len(parent)
        for at, word in zip(np.flatnonzero(logged).tolist(), words, strict=True):
            categories[at] = word
        scores = np.full(len(parent), np.nan, np.float32)
        said = pc.struct_field(shown, "scores").take(ours).flatten().take(pa.array(flat))
        scores[logged] = said.to_numpy(zero_copy_only=False)
        return rows, {"category": categories}, logged, scores

    def _top_scores(
        self, contexts: pa.Table, item_ids: pa.Array, parent: NDArray[np.int64], scores: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """Where no rows were kept, the score is that of the first 50 after ranking, where the item is among them."""
        open_ = np.isnan(scores)
        wanted = np.unique(parent[open_])
        if not len(wanted):
            return scores
        top = contexts.select(["top_item_ids", "top_scores"]).take(pa.array(wanted)).to_pylist()
        by_request = {
            at: dict(zip(row["top_item_ids"] or (), row["top_scores"] or (), strict=True))
            for at, row in zip(wanted.tolist(), top, strict=True)
        }
        at = np.flatnonzero(open_)
        ids = item_ids.take(pa.array(at)).to_pylist()
        scores[at] = [by_request[p].get(i, np.nan) for p, i in zip(parent[at].tolist(), ids, strict=True)]
        return scores

    def _note(self, what: str, n: int = 1) -> None:
        self._problems[what] = self._problems.get(what, 0) + n


def serving_frame(
    home: Path,
    since_us: int | None = None,
    until_us: int | None = None,
    *,
    columns: Collection[str] | None = None,
    logged_only: bool = False,
    at_most: int = AT_MOST,
    seed: int = 0,
) -> pa.Table:
    """The window as one table. `problems_of` tells what could not be read.

    columns: only these. logged_only: only rows whose features are known. at_most: with more rows, a sample of so many,
    drawn by `seed`: each row is as likely.
    """
    window = Window.open(home, since_us, until_us)
    random = np.random.default_rng(seed)
    parts: list[pa.Table] = []
    keys = np.empty(0)
    for batch in window.batches():
        part = batch.filter(batch["logged"]) if logged_only else batch
        part = part.select([n for n in part.column_names if n in columns]) if columns is not None else part
        parts.append(part)
        keys = np.concatenate([keys, random.random(part.num_rows)])
        if len(keys) > 2 * at_most:
            parts, keys = _thinned(parts, keys, at_most)
    parts, keys = _thinned(parts, keys, at_most)
    table = pa.concat_tables(parts) if parts else _empty(columns)
    return table.replace_schema_metadata({PROBLEMS: json.dumps(window.problems).encode()})


def problems_of(frame: pa.Table) -> list[str]:
    """What was left out of a serving frame, one sentence each."""
    said = (frame.schema.metadata or {}).get(PROBLEMS, b"[]")
    problems: list[str] = json.loads(said)
    return problems


def _thinned(
    parts: list[pa.Table], keys: NDArray[np.float64], at_most: int
) -> tuple[list[pa.Table], NDArray[np.float64]]:
    if len(keys) <= at_most:
        return parts, keys
    kept = np.sort(np.argpartition(keys, at_most)[:at_most])
    return [pa.concat_tables(parts).take(pa.array(kept))], keys[kept]


def _empty(columns: Collection[str] | None) -> pa.Table:
    """No rows, with the columns that there would be."""
    nothing = Window(LogFiles(EXPOSURES, _EXPOSURES, 0, 0), LogFiles(CONTEXTS, _CONTEXTS, 0, 0))
    table = nothing._rows(pa.schema([EXPOSURES.arrow.field(name) for name in _EXPOSURES]).empty_table())
    return table.select([n for n in table.column_names if n in columns]) if columns is not None else table


def _lengths(lists: pa.Array) -> NDArray[np.int64]:
    return np.asarray(pc.fill_null(pc.list_value_length(lists), 0), np.int64)


def _said_of_features(contexts: pa.Table) -> tuple[dict[str, pa.Array], dict[str, pa.Array]]:
    """By feature of the registry, for each request: whether its default was served, and its age in seconds; null where
    there is no context, and the age also of what was never written."""
    used = contexts["features"].combine_chunks()
    n = len(used)
    flat = used.flatten()
    owner = np.repeat(np.arange(n), _lengths(used))
    which = pc.index_in(flat.field("name"), value_set=pa.array(REGISTERED))
    ours = np.asarray(pc.is_valid(which).to_numpy(zero_copy_only=False), bool)
    which_at, owner = np.asarray(pc.fill_null(which, 0), np.int64)[ours], owner[ours]
    default = np.zeros((len(REGISTERED), n), bool)
    said = np.zeros((len(REGISTERED), n), bool)
    age = np.full((len(REGISTERED), n), np.nan)
    default[which_at, owner] = pc.equal(flat.field("source"), "default").to_numpy(zero_copy_only=False)[ours]
    said[which_at, owner] = True
    age[which_at, owner] = flat.field("age_s").to_numpy(zero_copy_only=False)[ours]
    flags = {name: pa.array(default[at], mask=~said[at]) for at, name in enumerate(REGISTERED)}
    ages = {name: pa.array(age[at], mask=np.isnan(age[at])) for at, name in enumerate(REGISTERED)}
    return flags, ages


def _unknown_features(contexts: pa.Table) -> dict[str, int]:
    """Features that are logged and that neither the registry nor the ranker's rows have → answers that name them."""
    names = contexts["features"].combine_chunks().flatten().field("name")
    unknown = names.filter(pc.invert(pc.is_in(names, value_set=_DEFINED)))
    return {pair["values"]: pair["counts"] for pair in pc.value_counts(unknown).to_pylist()}


def _sources(rows: NDArray[np.float32], logged: NDArray[np.bool_]) -> pa.Array:
    """Names of the sources that brought each item, list<string>; null where no row was kept."""
    first = SCHEMA.at(f"brought_{SOURCES[0]}")
    brought = np.nan_to_num(rows[:, first : first + len(SOURCES)]) > 0
    bits = brought @ (1 << np.arange(len(SOURCES)))
    names = pa.array([[s for at, s in enumerate(SOURCES) if b >> at & 1] for b in range(1 << len(SOURCES))])
    return names.take(pa.array(bits, mask=~logged))
