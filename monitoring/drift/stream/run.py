"""Online detectors over the service's own log: the answers of the last hours in the order of time, ranker by ranker,
each against what its own training saw.

Nothing is kept between two looks: detectors begin anew at the first answer of the stretch and come to the same alarms
at the same answers, whoever looks and after whatever restart. What they have gathered by any row is at most what one
that began earlier would have, so that looking again and again adds no false alarm. The stretch is bounded in hours and
answers.

Of each user the first answer of each day counts, and of an answer the first place: rows of one user are no independent
ones. Streams: `score`, of that place; `missing_FEATURE`, whether the feature's default was served; `clicks`, whether
anything of the slate was acted on, once that is known, against the ranker's own first answers.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from contracts.errors import StreamRecError
from contracts.settings import Settings
from features.frame import REGISTERED, default_flag
from monitoring.drift.service.binned import numbers
from monitoring.drift.service.labelled import LabelSource, first_served, known_until, own_labels
from monitoring.drift.service.run import called, trained_of
from monitoring.drift.service.thinned import OnePerUser, one_per_user
from monitoring.drift.service.window import Served, last_answers, nth_answer
from monitoring.drift.stream.listen import Heard, Kind, Stream, listen
from monitoring.drift.stream.report import StreamReport
from monitoring.frames.reference import Reference
from monitoring.frames.serving import Window

HOUR_US = 3_600_000_000
DAY_US = 24 * HOUR_US
SETTLED_US = 60_000_000  # until an answer and its context have surely reached the disk
ANSWERS = 20_000  # looked at, at most
CLICKED = 5_000  # answers with their labels, at most: a join reads every item of their slates
LEAST_USERS = 200  # in a reference, of which a level is known to well under what counts as a shift
ERT = 10_000_000.0  # rows between two false alarms, over all streams of a ranker
COLUMNS = ("timestamp", "user_id", "bento", "score", *(default_flag(name) for name in REGISTERED))


@dataclass(frozen=True, slots=True)
class _Answers:
    """One row an answer, in the order of time. request [n]: its number among all of the ranker's in the stretch."""

    rows: pa.Table
    request: NDArray[np.int64]

    @classmethod
    def of(cls, table: pa.Table) -> "_Answers":
        """Of each user the first answer of each day."""
        table = table.sort_by("timestamp").combine_chunks()
        at_us = _us(table)
        users = pc.dictionary_encode(table["user_id"].combine_chunks(), null_encoding="encode").indices.to_numpy()
        _, first = np.unique(np.stack([users, at_us // DAY_US]), axis=1, return_index=True)
        first.sort()
        return cls(table.take(pa.array(first)), first.astype(np.int64))

    def stream(self, name: str, kind: Kind, reference: NDArray[np.float64], values: NDArray[np.float64]) -> Stream:
        return Stream(name, kind, reference, values, _us(self.rows), self.request)


def stream_run(
    settings: Settings,
    *,
    now_us: int,
    hours: float,
    seed: int = 0,
    labels: LabelSource | None = None,
    reference: Callable[[Served], Reference] | None = None,
) -> list[StreamReport]:
    """A report for each ranker that answered in the last `hours`.

    labels: default: of the home's own log. reference: of a served ranker; default: the registry's.

    Raises:
        OSError: the log cannot be read.
    """
    until_us = now_us - SETTLED_US
    since_us = max(until_us - int(hours * HOUR_US), last_answers(settings.home, ANSWERS, until_us))
    served = _served(settings.home, since_us, until_us)
    if not served:
        return [StreamReport("", now_us, why="no answer was logged lately")]
    reports = []
    for part, table in served:
        trained, why = trained_of(part, settings, reference)
        if trained is None:
            reports.append(StreamReport(called(part, part.bentos, settings), now_us, why=why))
            continue
        model = trained.model.removeprefix("models:/") if trained.model else called(part, part.bentos, settings)
        if part.feature_hash not in (trained.feature_hash, ""):
            why = f"served with {part.feature_hash[:12]}, trained with {trained.feature_hash[:12]}: other definitions"
            reports.append(StreamReport(model, now_us, why=why))
            continue
        streams = _of_answers(_Answers.of(table), trained, seed)
        bento = part.bentos.most_common(1)[0][0]
        clicks = _of_clicks(settings, labels, part.ranker, bento, now_us, hours)
        streams += [clicks] if isinstance(clicks, Stream) else []
        heard = [listen(stream, ert=ERT * len(streams), seed=seed) for stream in streams]
        heard += [clicks] if isinstance(clicks, Heard) else []
        reports.append(StreamReport(model, now_us, heard))
    return reports


def _served(home: Path, since_us: int, until_us: int) -> list[tuple[Served, pa.Table]]:
    """Each ranker's answers of the feature definitions that most of them have, the first item of each."""
    parts: dict[tuple[str, str], list[pa.Table]] = {}
    for batch in Window.open(home, since_us, until_us, places=1).batches():
        keys = batch.select(["ranking", "feature_hash"])
        for pair in keys.group_by(["ranking", "feature_hash"]).aggregate([]).to_pylist():
            mine = [pc.equal(pc.fill_null(batch[n], ""), pair[n] or "") for n in ("ranking", "feature_hash")]
            key = (pair["ranking"] or "", pair["feature_hash"] or "")
            parts.setdefault(key, []).append(batch.filter(pc.and_(*mine)).select(list(COLUMNS)))
    tables = {key: pa.concat_tables(some) for key, some in parts.items()}
    found: dict[str, tuple[Served, pa.Table]] = {}
    for (ranker, hash_), table in sorted(tables.items(), key=lambda pair: pair[1].num_rows):
        bentos = Counter({p["values"] or "": p["counts"] for p in pc.value_counts(table["bento"]).to_pylist()})
        found[ranker] = Served(ranker, hash_, OnePerUser(()), rows=table.num_rows, bentos=bentos), table
    return list(found.values())


def _of_answers(answers: _Answers, trained: Reference, seed: int) -> list[Stream]:
    slates = trained.origin == "slate"
    shown = trained.shown
    if slates:
        shown = shown.filter(pc.equal(shown["position"], 1))
    before = one_per_user(shown, ("score", *COLUMNS[4:]), seed=seed)
    nothing = np.empty(0)
    enough = before.num_rows >= LEAST_USERS
    # Candidates that were not shown have other scores than the first of a slate: then there is no reference.
    scores = numbers(before["score"]) if slates and enough and "score" in before.column_names else nothing
    streams = [answers.stream("score", "cusum", scores, numbers(answers.rows["score"]))]
    for name in REGISTERED:
        flag = default_flag(name)
        sample = _flags(before, flag) if enough and flag in before.column_names else nothing
        streams.append(answers.stream(f"missing_{name}", "estimated_rate", sample, _flags(answers.rows, flag)))
    return streams


def _of_clicks(
    settings: Settings, labels: LabelSource | None, ranker: str, bento: str, now_us: int, hours: float
) -> Stream | Heard:
    """Answers whose labels are known, against the ranker's first ones; words of why not, as what was heard."""

    def unheard(why: str) -> Heard:
        return Heard("clicks", "estimated_rate", 0, why)

    home = settings.home
    try:
        read = labels or own_labels(settings, bento, now_us=now_us)
        until_us = now_us if labels else known_until(bento, home, now_us)
        since_us = max(until_us - int(hours * HOUR_US), last_answers(home, CLICKED, until_us))
        first_us = first_served(home, ranker, bento, since_us)
        if first_us is None:
            return unheard("this ranker has not served for long enough to be compared with itself")
        end_us = min(nth_answer(home, CLICKED, first_us, first_us + int(hours * HOUR_US)), since_us)
        before, now = (_Answers.of(_acted(read(*span, ranker))) for span in ((first_us, end_us), (since_us, until_us)))
    except (StreamRecError, OSError, pa.ArrowException) as error:
        return unheard(f"what people did cannot be read: {getattr(error, 'message', error)}")
    if before.rows.num_rows < LEAST_USERS:
        return unheard(f"{before.rows.num_rows} users in the ranker's first answers, fewer than {LEAST_USERS}")
    return now.stream("clicks", "estimated_rate", numbers(before.rows["acted"]), numbers(now.rows["acted"]))


def _acted(labelled: pa.Table) -> pa.Table:
    """One row an answer whose labels are known: whether any item of it was acted on."""
    known = labelled.filter(pc.is_valid(labelled["label"])).combine_chunks()
    codes = pc.dictionary_encode(known["request_id"].combine_chunks()).indices.to_numpy()  # 0, 1, … as they come
    _, first = np.unique(codes, return_index=True)
    acted = np.bincount(codes, numbers(known["label"])) > 0
    answers = known.select(["timestamp", "user_id"]).take(pa.array(first))
    return answers.append_column("acted", pa.array(acted.astype(np.float64)))


def _flags(table: pa.Table, name: str) -> NDArray[np.float64]:
    return numbers(table[name].cast(pa.int8()))


def _us(table: pa.Table) -> NDArray[np.int64]:
    return np.asarray(table["timestamp"].cast(pa.int64()).to_numpy(), np.int64)
