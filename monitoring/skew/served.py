"""A window of answers as statistics, batch by batch: what `statistics.compare` sets against training's."""

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from bentos.telemetry.kinds import EXPOSURES
from contracts.errors import DataError
from features.frame import FEATURES, MADE_FROM, WORDS, default_flag
from features.summaries import Summary, Tally
from monitoring.frames.log_files import LogFiles
from monitoring.frames.serving import Window

# Clocks of two machines may differ by so much.
CLOCKS_APART_US = 60_000_000


@dataclass(slots=True)
class Served:
    """What a window has of one ranker. answers: all; rows: items with their features, that summaries are of; users:
    whose they are. left_out: reason → rows."""

    ranking: str
    summaries: dict[str, Summary] = field(default_factory=dict)
    troubles: dict[str, str] = field(default_factory=dict)
    answers: int = 0
    with_rows: int = 0
    rows: int = 0
    users: int = 0
    left_out: dict[str, int] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


def rankers_of(home: Path, since_us: int | None, until_us: int | None) -> Counter[str]:
    """Version of the ranker (`v3-1a2b3c4d`) → answers of the window."""
    log = LogFiles.open(home, EXPOSURES, ("timestamp_us", "outcome", "versions"), since_us, until_us)
    found: Counter[str] = Counter()
    for table in log.tables():
        answered = table.filter(pc.equal(table["outcome"], "ok"))["versions"].combine_chunks()
        for pair in pc.value_counts(pc.struct_field(answered, "ranking")).to_pylist():
            found[pair["values"] or ""] += pair["counts"]
    return found


def served(
    home: Path,
    ranking: str,
    *,
    since_us: int | None,
    until_us: int | None,
    feature_hash: str,
    trained_until_us: int,
    now_us: int,
    seed: int = 0,
) -> Served:
    """Sum up the rows of one ranker.

    Left out, by name: rows of other feature definitions, of the future, and of a clock from before the training ended;
    they would be judged against what they are no sample of.
    """
    window = Window.open(home, since_us, until_us)
    random = np.random.default_rng(seed)
    tallies = {name: Tally("word" if name in WORDS else "number", random) for name in FEATURES}
    done = Served(ranking)
    users: set[str] = set()
    for batch in window.batches():
        part = batch.filter(pc.equal(batch["ranking"], ranking))
        part = part.filter(part["logged"])
        part = _without(part, "of other feature definitions", pc.not_equal(part["feature_hash"], feature_hash), done)
        future = pc.greater(part["timestamp"].cast(pa.int64()), now_us + CLOCKS_APART_US)
        part = _without(part, "from the future: a clock is wrong", future, done)
        early = pc.less(part["clock"].cast(pa.int64()), trained_until_us - CLOCKS_APART_US)
        part = _without(part, "of a moment before the training ended: a clock is wrong", early, done)
        if not part.num_rows:
            continue
        done.rows += part.num_rows
        users.update(pc.unique(part["user_id"]).to_pylist())
        for name, tally in tallies.items():
            if name in done.troubles:
                continue
            flag = default_flag(MADE_FROM[name]) if name in MADE_FROM else None
            try:
                tally.add(part[name], part[flag] if flag else None)
            except DataError as error:
                done.troubles[name] = error.message
    done.answers, done.with_rows, done.users = window.answers, window.with_rows, len(users)
    done.summaries = {name: tally.summary() for name, tally in tallies.items() if name not in done.troubles}
    done.problems = [*window.problems, *(f"{n} rows {what}" for what, n in done.left_out.items())]
    return done


def _without(part: pa.Table, what: str, wrong: pa.ChunkedArray, done: Served) -> pa.Table:
    n = pc.sum(wrong).as_py() or 0
    if not n:
        return part
    done.left_out[what] = done.left_out.get(what, 0) + n
    return part.filter(pc.invert(wrong))
