"""One stream of rows in the order of time, put before an online detector: when it alarmed, and since when and how many
requests the change had been there. Pure.

n rows of the stream, m of the reference.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri, rel_entr

from monitoring.drift.base import LEAST_ROWS, CannotJudge
from monitoring.drift.online.base import Alarm
from monitoring.drift.online.registry import ONLINE

Floats = NDArray[np.float64]
Kind = Literal["cusum", "estimated_rate"]

# A change that goes on alarms again within about as many rows as it took: an alarm without a successor after so many
# times as many is over.
STANDS = 3
LEAST_STANDS = 200  # rows


@dataclass(frozen=True, slots=True)
class Stream:
    """kind: the detector. reference [m], values [n]: NaN where a row says nothing; a rate has 0 and 1. at_us [n]:
    ascending; request [n]: how many requests of the stream's ranker had been answered by then."""

    name: str
    kind: Kind
    reference: Floats
    values: Floats
    at_us: NDArray[np.int64]
    request: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Heard:
    """What a stream has said. alarm_us: of the alarm that found what still stands, None where nothing does;
    since_us: of the change that it found, None where it was there from the first rows on; requests: from the change, or
    the first row, to the alarm.
    before, now: mean of the reference, and of the rows from the change to the last alarm. why: it cannot be judged."""

    name: str
    detector: str
    rows: int
    why: str = ""
    alarm_us: int | None = None
    since_us: int | None = None
    requests: int = 0
    statistic: float | None = None
    threshold: float | None = None
    before: float | None = None
    now: float | None = None


def listen(stream: Stream, *, ert: float, seed: int = 0) -> Heard:
    """ert: rows between two false alarms, on average."""
    there = np.isfinite(stream.values)
    values = stream.values[there]
    at_us, request = stream.at_us[there], stream.request[there]
    reference = stream.reference[np.isfinite(stream.reference)]
    try:
        detector = ONLINE[stream.kind](_sample(reference, stream.kind), ert=ert, seed=seed)
    except CannotJudge as reason:
        return Heard(stream.name, stream.kind, len(values), str(reason))
    if not len(values):
        return Heard(stream.name, stream.kind, 0, "no row of the window says anything of it")
    alarms = [found for value in values.tolist() if (found := detector.update(value)) is not None]
    said = Heard(stream.name, stream.kind, len(values), before=float(reference.mean()))
    if not alarms:
        return said
    if len(values) - alarms[-1].row > _stands(alarms[-1]):
        return said
    found = first_of_the_last(alarms)
    begun, end = found.row - found.rows, found.row  # the rows since it began, or began anew
    changed = begun + changed_at(reference, values[begun:end], stream.kind)
    return Heard(
        said.name,
        said.detector,
        said.rows,
        alarm_us=int(at_us[end - 1]),
        since_us=int(at_us[changed]) if changed >= LEAST_ROWS else None,
        requests=int(request[end - 1] - request[changed]),
        statistic=found.statistic,
        threshold=found.threshold,
        before=said.before,
        now=float(values[changed : alarms[-1].row].mean()),
    )


def first_of_the_last(alarms: list[Alarm]) -> Alarm:
    """The alarm that found what the last one still sees: those that stand when the next one comes are of one change."""
    found = alarms[-1]
    for before, after in zip(alarms[-2::-1], alarms[:0:-1], strict=True):
        if after.rows > _stands(before):
            break
        found = before
    return found


def _stands(alarm: Alarm) -> int:
    return STANDS * max(alarm.rows, LEAST_STANDS)


def changed_at(reference: Floats, values: Floats, kind: Kind) -> int:
    """The row from which on the values are most likely of another level than the reference, to the end: by the
    likelihood ratio of each row to be that one, with the level that the rows from it on have."""
    rows = np.arange(1, len(values) + 1)  # from each row on to the end, the last one first
    if kind == "cusum":
        ordered = np.sort(reference)
        rank = (np.searchsorted(ordered, values, "left") + np.searchsorted(ordered, values, "right")) / 2
        normal = ndtri((rank + 0.5) / (len(ordered) + 1))
        ratio = np.cumsum(normal[::-1]) ** 2 / rows
    else:
        rate = (reference.sum() + 0.5) / (len(reference) + 1)
        hits = np.cumsum(values[::-1])
        ratio = rel_entr(hits, rows * rate) + rel_entr(rows - hits, rows * (1 - rate))
    return len(values) - 1 - int(np.argmax(ratio))


def _sample(reference: Floats, kind: Kind) -> Floats:
    """A rate that the reference never saw, or always, is none to a detector: one row of the other kind is put to it."""
    if kind == "estimated_rate" and len(reference) and (reference == reference[0]).all():
        return np.append(reference, 1.0 - reference[0])
    return reference
