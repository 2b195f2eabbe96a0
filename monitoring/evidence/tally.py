"""Who saw what in which arm, and what came of it: sums over units of assignment, kept up as records come.

By assigned arm (intention to treat), from `experiments[release]` of the exposures, which testers' requests lack.
Errors, latency, rungs and empty slates are judged by the variant's own attempts, also where another answered at last.
A click counts for the request that it names if its item was in that slate, once, within the metric's window. Other
events may name no request: they count for their unit, from its first exposure in the release on.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from contracts.errors import UsageError
from contracts.measurements import ArmCount
from contracts.routing import Unit
from contracts.serving import DEGRADATIONS
from monitoring.evidence.cells import Batch, Cells, Column, Sums
from monitoring.evidence.columns import (
    ARMS,
    CANDIDATE,
    CHAMPION,
    CONTROL,
    NO_RUNG,
    SHADOW,
    Acts,
    Answers,
    Bools,
    Calls,
    Columns,
    Floats,
)
from monitoring.evidence.histogram import Latencies
from monitoring.evidence.index import Ints, UInts
from monitoring.evidence.requests import MARKS, Requests
from registry.releases.policy import Metric, MetricKind

HOUR_US = 3_600_000_000
# A consumer's clock may be this far behind the gateway's: an event may seem older than the answer that it is about.
BEHIND_US = 300_000_000
# Records of one request lie in several logs: so long is waited for the others.
PATIENCE_US = 600_000_000
CONTEXT_PATIENCE_US = 30_000_000

BY_ATTEMPT: frozenset[MetricKind] = frozenset(
    {
        "error_rate",
        "latency_over",
        "degradation",
        "empty",
        "score_correlation",
        "score_range",
        "schema",
        "overlap",
        "score_shift",
    }
)
BY_UNIT: frozenset[MetricKind] = frozenset({"event_rate", "event_mean", "value_mean"})
REQUESTS, ATTEMPTS = "requests", "attempts"  # columns of their own; a metric's name has no space
NEVER = np.iinfo(np.int64).max
_N_ARMS = len(ARMS)


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of memory. requests: of the arms, for their clicks; older ones are forgotten, and counted. waiting: events
    (or exposures) whose exposure (or context) has not come yet."""

    requests: int = 4_000_000
    waiting: int = 500_000


class Tally:
    """
    Memory: about 50 bytes a unit and arm, and 16 for each metric, again for each slice that the unit is in; about 160
    bytes for each request of the arms (20 items) within the longest attribution window.

    Args:
        release: id in `experiments`. arms: what its arms are called there.
        since_us: what is older does not count.
        by_request: attempts belong to the arm of their request; for an experiment, whose arms one Bento answers.
    """

    def __init__(
        self,
        metrics: Sequence[Metric],
        *,
        release: str,
        unit: Unit = "user",
        since_us: int = 0,
        arms: tuple[str, str] = ("candidate", "control"),
        by_request: bool = False,
        limits: Limits = Limits(),
    ) -> None:
        self.release, self.since_us, self.arms = release, since_us, arms
        self._limits = limits
        self._by_request = by_request
        self._calling = [m for m in metrics if m.kind in BY_ATTEMPT]
        self._clicks = [m for m in metrics if m.kind == "ctr"]
        self._events = [m for m in metrics if m.kind in BY_UNIT]
        # Metrics of one event and window share the mark of its first click.
        marks = dict.fromkeys((event_of(m), m.attribution_hours) for m in self._clicks)
        self._marks = {key: bit for bit, key in enumerate(marks)}
        if len(marks) > MARKS:
            raise UsageError(f"{len(marks)} click rates of different events or windows; at most {MARKS} can be counted")
        names = dict.fromkeys(event_of(m) for m in (*self._clicks, *self._events))
        self.names = {name: code for code, name in enumerate(names)}
        keys = dict.fromkeys(key for m in metrics for key in m.slices)
        self._answer_keys = tuple(k for k in keys if any(k in m.slices for m in (*self._clicks, *self._events)))
        self.columns = Columns(release, arms, unit, tuple(keys), tuple(names), since_us, by_request)
        window = max((m.attribution_hours for m in (*self._clicks, *self._events)), default=0.0)
        self._window_us = int(window * HOUR_US)

        answered = {REQUESTS: Column()} | {m.name: Column() for m in self._clicks} | _by_unit(self._events)
        self._units = Cells(answered)
        self._first_us = np.empty(0, np.int64)  # of each cell of `_units`
        self._unit_slice = {key: np.empty(0, np.int64) for key in self._answer_keys}
        self._others = Cells({REQUESTS: Column()})  # the champion's
        self._calls = Cells({ATTEMPTS: Column()} | {m.name: Column() for m in self._calling})
        self._slices = {
            key: Cells(
                {m.name: Column() for m in self._clicks if key in m.slices}
                | _by_unit([m for m in self._events if key in m.slices])
            )
            for key in self._answer_keys
        }
        self._call_slices = {
            key: Cells({m.name: Column() for m in self._calling if key in m.slices})
            for key in keys
            if any(key in m.slices for m in self._calling)
        }
        self._by_rung = Cells({m.name: Column() for m in self._clicks})
        self._rungs = np.zeros((_N_ARMS, NO_RUNG + 1), np.int64)
        self._rung_columns: dict[int, str] = {}
        self._requests = Requests(self._answer_keys)
        self.latencies = Latencies(_N_ARMS)
        self.panel: dict[str, int] = {}
        self.counts = dict.fromkeys(
            ("answers", "attempts", "events", "duplicates", "unknown_request", "not_in_slate", "forgotten"), 0
        )
        self._forgot_us = since_us
        self._waiting_acts: list[tuple[int, Acts]] = []
        self._waiting_answers: list[tuple[int, Answers]] = []
        self._waiting_calls: list[tuple[int, Calls]] = []
        self._contexts: list[tuple[int, UInts, dict[str, Ints]]] = []

    # Records in

    def add(
        self,
        exposures: pa.Table | None = None,
        attempts: pa.Table | None = None,
        events: pa.Table | None = None,
        *,
        now_us: int,
    ) -> None:
        """Tables with the columns of the logs, each record once, in any order."""
        if attempts is not None and len(attempts):
            calls, panel = self.columns.calls(attempts)
            for case, n in panel.items():
                self.panel[case] = self.panel.get(case, 0) + n
            self.add_calls(calls, now_us)
            if self._answer_keys:
                self._contexts.append((now_us, *self.columns.contexts(attempts, self._answer_keys)))
        if exposures is not None and len(exposures):
            self._waiting_answers.append((now_us, self.columns.answers(exposures)))
        if self._waiting_answers:
            self._settle_answers(now_us)
        if events is not None and len(events) and self.names:
            self.add_acts(self.columns.acts(events), now_us)

    def add_answers(self, answers: Answers, now_us: int) -> None:
        others = answers.arm == CHAMPION
        if others.any():
            self._count_others(answers.where(others))
            answers = answers.where(~others)
        new = self._requests.new(answers)
        self.counts["duplicates"] += len(answers) - int(new.sum())
        if not new.all():
            answers = answers.where(new)
        self.counts["answers"] += len(answers)
        if not len(answers):
            return
        self._requests.add(answers)
        self._count_answers(answers)
        self._bound_requests()
        if self._waiting_acts:
            self._retry_acts(now_us)
        if self._waiting_calls:
            self._retry_calls(now_us)

    def add_calls(self, calls: Calls, now_us: int) -> None:
        if self._by_request:
            calls = self._with_arm_of_request(calls, now_us)
        self.counts["attempts"] += len(calls)
        if not len(calls):
            return
        figures = {m.name: _figures(m, calls) for m in self._calling}
        ones = np.ones(len(calls))
        batch = self._calls.batch(calls.unit, calls.arm)
        n = batch.total()
        self._calls.add(ATTEMPTS, batch, n, n)
        for name, (x, y) in figures.items():
            self._calls.add(name, batch, batch.total(x), n if y is None else batch.total(y))
        self.latencies.add(calls.arm, calls.ms)
        for key, cells in self._call_slices.items():
            there = calls.slices[key] >= 0
            part = cells.batch(calls.unit[there], calls.arm[there] + _N_ARMS * calls.slices[key][there])
            for name in cells.columns:
                x, y = figures[name]
                cells.add(name, part, part.total(x[there]), part.total((ones if y is None else y)[there]))

    def add_acts(self, acts: Acts, now_us: int) -> None:
        """Events; those whose exposure has not been seen yet wait for it."""
        self.counts["events"] += len(acts)
        rest = self._count_acts(acts)
        if len(rest):
            self._waiting_acts.append((now_us, rest))
            self._bound_waiting()

    def forget(self, now_us: int) -> None:
        """Let go of the requests that no event can name in time any more. For one who has read all events until now:
        while old logs are read, the clicks of an old request are yet to come."""
        if now_us - self._forgot_us > self._window_us // 4 + PATIENCE_US:
            self._requests.forget(now_us - self._window_us - BEHIND_US - PATIENCE_US)
            self._forgot_us = now_us

    # Figures out

    def sums(self, metric: str, arm: str) -> Sums:
        """Over the units of an arm: `candidate`, `control` (or `treatment`), or `shadow`."""
        return self._cells(metric).sums(metric, self.code(arm))

    def slices(self, metric: str) -> dict[str, dict[str, Sums]]:
        """`country=DE` → arm → sums."""
        found = {}
        for key, values in self.columns.values.items():
            source = self._call_slices if metric in self._calls.columns else self._slices
            if key not in source or metric not in source[key].columns:
                continue
            for value, code in values.items():
                of = {arm: source[key].sums(metric, a + _N_ARMS * code) for arm, a in self._arm_codes()}
                if any(sums.n for sums in of.values()):
                    found[f"{key}={value}"] = of
        return found

    def rung_sums(self, arm: str) -> dict[str, Sums]:
        """Rung → over all units of the arm, x: their requests that this rung answered, y: all their requests."""
        code = self.code(arm)
        return {DEGRADATIONS[r]: self._units.sums(name, code) for r, name in sorted(self._rung_columns.items())}

    def metric_by_rung(self, metric: str, arm: str) -> dict[str, Sums]:
        """Of a click rate: over the requests that each rung answered. Empty for other metrics."""
        if metric not in self._by_rung.columns:
            return {}
        of = {rung: self._by_rung.sums(metric, self.code(arm) + _N_ARMS * r) for r, rung in enumerate(DEGRADATIONS)}
        return {rung: sums for rung, sums in of.items() if sums.n}

    def arm(self, arm: str) -> ArmCount:
        """Units, requests and rungs by assignment; of the shadow: attempts and what answered them."""
        code = self.code(arm)
        if code == SHADOW:
            sums = self._calls.sums(ATTEMPTS, code)
        else:
            sums = (self._others if code == CHAMPION else self._units).sums(REQUESTS, code)
        rungs = {DEGRADATIONS[r]: int(n) for r, n in enumerate(self._rungs[code, :NO_RUNG]) if n}
        return ArmCount(units=sums.n, requests=round(sums.sum_y), rungs=rungs)

    def attempts(self, arm: str) -> Sums:
        return self._calls.sums(ATTEMPTS, self.code(arm))

    def code(self, arm: str) -> int:
        return dict(self._arm_codes())[arm]

    @property
    def waiting(self) -> int:
        """Events that wait for the exposure that they name."""
        return sum(len(acts) for _, acts in self._waiting_acts)

    @property
    def nbytes(self) -> int:
        cells = (self._units, self._others, self._calls, self._by_rung, *self._slices.values())
        own = sum(c.nbytes for c in (*cells, *self._call_slices.values()))
        return own + self._requests.nbytes + self._first_us.nbytes + sum(a.nbytes for a in self._unit_slice.values())

    # Within

    def _arm_codes(self) -> tuple[tuple[str, int], ...]:
        return ((self.arms[0], CANDIDATE), (self.arms[1], CONTROL), ("champion", CHAMPION), ("shadow", SHADOW))

    def _cells(self, metric: str) -> Cells:
        return self._calls if metric in self._calls.columns else self._units

    def _count_others(self, answers: Answers) -> None:
        batch = self._others.batch(answers.unit, answers.arm)
        n = batch.total()
        self._others.add(REQUESTS, batch, n, n)
        self._rungs[CHAMPION] += np.bincount(answers.rung, minlength=NO_RUNG + 1)

    def _count_answers(self, answers: Answers) -> None:
        batch = self._units.batch(answers.unit, answers.arm)
        n = batch.total()
        nothing = np.zeros(len(n))
        items = answers.items.lengths.astype(np.float64)
        impressions = batch.total(items)
        new = batch.is_new * 1.0
        self._units.add(REQUESTS, batch, n, n)
        for metric in self._clicks:
            self._units.add(metric.name, batch, nothing, impressions)
        for metric in self._events:
            self._units.add(metric.name, batch, nothing, new)
        self._count_rungs(answers, batch, n)
        self._remember_units(answers, batch)
        for key, cells in self._slices.items():
            self._count_slice(cells, answers, answers.slices[key], items)
        if self._clicks:
            part = self._by_rung.batch(answers.unit, answers.arm + _N_ARMS * answers.rung)
            shown = part.total(items)
            for metric in self._clicks:
                self._by_rung.add(metric.name, part, np.zeros(len(shown)), shown)

    def _count_slice(self, cells: Cells, answers: Answers, codes: Ints, items: Floats) -> None:
        there = codes >= 0
        part = cells.batch(answers.unit[there], answers.arm[there] + _N_ARMS * codes[there])
        nothing, shown, new = np.zeros(len(part.cells)), part.total(items[there]), part.is_new * 1.0
        by_click = {m.name for m in self._clicks}
        for name in cells.columns:
            cells.add(name, part, nothing, shown if name in by_click else new)

    def _count_rungs(self, answers: Answers, batch: Batch, n: Floats) -> None:
        flat = answers.arm * (NO_RUNG + 1) + answers.rung
        self._rungs += np.bincount(flat, minlength=self._rungs.size).reshape(self._rungs.shape)
        for rung in np.unique(answers.rung):
            if rung not in self._rung_columns:
                self._rung_columns[int(rung)] = f"rung {rung}"
                # This batch is in the requests already, and comes below.
                self._units.open(f"rung {rung}", REQUESTS)
                self._units.add(f"rung {rung}", batch, np.zeros(len(n)), -n)
        for rung, name in self._rung_columns.items():
            self._units.add(name, batch, batch.total((answers.rung == rung) * 1.0), n)

    def _remember_units(self, answers: Answers, batch: Batch) -> None:
        cells = batch.cells[batch.place]
        size = len(self._units)
        if size > len(self._first_us):
            room = max(size, len(self._first_us) * 3 // 2, 1024)
            self._first_us = _filled(self._first_us, room, NEVER)
            self._unit_slice = {k: _filled(v, room, -1) for k, v in self._unit_slice.items()}
        np.minimum.at(self._first_us, cells, answers.time_us)
        for key, known in self._unit_slice.items():
            known[cells] = np.where(answers.slices[key] >= 0, answers.slices[key], known[cells])

    def _count_acts(self, acts: Acts) -> Acts:
        """Count what belongs to an exposure that is known; the rest is given back."""
        rows, places = self._requests.find(acts.request, acts.item)
        rows = np.where(acts.by_request, rows, -1)
        matched = (rows >= 0) & (places >= 0)
        self.counts["not_in_slate"] += int(((rows >= 0) & (places < 0)).sum())
        if matched.any():
            self._count_matched(acts.where(matched), rows[matched], places[matched])
        alone = ~acts.by_request
        rest = acts.by_request & (rows < 0)
        if alone.any():
            rest[np.flatnonzero(alone)[~self._count_alone(acts.where(alone))]] = True
        return acts.where(rest)

    def _count_matched(self, acts: Acts, rows: Ints, places: Ints) -> None:
        request = self._requests
        unit, arm = request["unit"][rows], request["arm"][rows].astype(np.int64)
        rung = request["rung"][rows].astype(np.int64)
        lag = acts.time_us - request["time_us"][rows]
        slices = {key: request[f"slice:{key}"][rows].astype(np.int64) for key in self._answer_keys}
        once: dict[int, Bools] = {}
        for metric in self._clicks:
            mine = self._mine(metric, acts, lag)
            bit = self._marks[event_of(metric), metric.attribution_hours]
            if bit not in once:
                once[bit] = np.zeros(len(acts), bool)
                once[bit][mine] = request.first(places[mine], acts.time_us[mine], bit)
            hit = mine & once[bit]
            self._put(metric, self._units, unit[hit], arm[hit], np.ones(int(hit.sum())))
            self._put(metric, self._by_rung, unit[hit], arm[hit] + _N_ARMS * rung[hit], np.ones(int(hit.sum())))
            self._put_slices(
                metric, unit[hit], arm[hit], np.ones(int(hit.sum())), {k: v[hit] for k, v in slices.items()}
            )
        for metric in self._events:
            hit = self._mine(metric, acts, lag)
            self._put_event(metric, acts.where(hit), unit[hit], arm[hit], {k: v[hit] for k, v in slices.items()})

    def _count_alone(self, acts: Acts) -> Bools:
        """Events that name no request: for their unit. Which of them have one."""
        if not len(self._units):
            return np.zeros(len(acts), bool)
        cells = np.stack([self._units.find(acts.unit, np.full(len(acts), arm)) for arm in (CANDIDATE, CONTROL)])
        first = np.where(cells >= 0, self._first_us[np.maximum(cells, 0)], NEVER)
        # A unit in both (it moved at 100 %) acts for the arm that it came to last.
        begun = np.where(first - BEHIND_US <= acts.time_us, first, -1)
        arm = np.argmax(begun, axis=0)
        at = np.arange(len(acts))
        known = (cells >= 0).any(axis=0)
        valid = begun[arm, at] >= 0
        lag = np.where(valid, acts.time_us - first[arm, at], -BEHIND_US - 1)
        slices = {key: np.where(valid, v[cells[arm, at]], -1).astype(np.int64) for key, v in self._unit_slice.items()}
        for metric in self._events:
            hit = valid & self._mine(metric, acts, lag)
            self._put_event(metric, acts.where(hit), acts.unit[hit], arm[hit], {k: v[hit] for k, v in slices.items()})
        return known

    def _mine(self, metric: Metric, acts: Acts, lag: Ints) -> Bools:
        named: Bools = acts.name == self.names[event_of(metric)]
        return named & (lag >= -BEHIND_US) & (lag <= int(metric.attribution_hours * HOUR_US))

    def _put_event(self, metric: Metric, acts: Acts, unit: UInts, arm: Ints, slices: Mapping[str, Ints]) -> None:
        x = acts.value if metric.kind == "value_mean" else np.ones(len(acts))
        self._put(metric, self._units, unit, arm, x)
        self._put_slices(metric, unit, arm, x, slices)

    def _put_slices(self, metric: Metric, unit: UInts, arm: Ints, x: Floats, slices: Mapping[str, Ints]) -> None:
        for key in metric.slices:
            there = slices[key] >= 0
            self._put(metric, self._slices[key], unit[there], arm[there] + _N_ARMS * slices[key][there], x[there])

    def _put(self, metric: Metric, cells: Cells, unit: UInts, groups: Ints, x: Floats) -> None:
        if len(x):
            batch = cells.batch(unit, groups)
            cells.add(metric.name, batch, batch.total(x), np.zeros(len(batch.cells)))

    def _retry_acts(self, now_us: int) -> None:
        waiting, self._waiting_acts = self._waiting_acts, []
        for since_us, acts in waiting:
            rest = self._count_acts(acts)
            if len(rest) and now_us - since_us < PATIENCE_US:
                self._waiting_acts.append((since_us, rest))
            else:
                self.counts["unknown_request"] += len(rest)

    def _bound_waiting(self) -> None:
        while len(self._waiting_acts) > 64:  # few big pieces are faster than many small ones
            (since_us, a), (_, b) = self._waiting_acts[0], self._waiting_acts[1]
            self._waiting_acts[:2] = [(since_us, Acts.joined([a, b]))]
        while self._waiting_acts and self.waiting > self._limits.waiting:
            self.counts["unknown_request"] += len(self._waiting_acts.pop(0)[1])

    def _settle_answers(self, now_us: int) -> None:
        """Count the exposures whose context is known, and those that have waited long enough for it."""
        waiting, self._waiting_answers = self._waiting_answers, []
        known: list[Answers] = []
        left = sum(len(answers) for _, answers in waiting)
        for since_us, answers in waiting:
            if self._answer_keys:
                late = now_us - since_us >= CONTEXT_PATIENCE_US or left > self._limits.waiting
                left -= len(answers)
                answers, found = self._with_context(answers)
                ready = found | late | (answers.arm == CHAMPION)
                if not ready.all():
                    self._waiting_answers.append((since_us, answers.where(~ready)))
                    answers = answers.where(ready)
            known.append(answers)
        self._contexts = [c for c in self._contexts if now_us - c[0] < CONTEXT_PATIENCE_US * 2]
        while sum(len(c[1]) for c in self._contexts) > 2 * self._limits.waiting:
            self._contexts.pop(0)
        if known and sum(map(len, known)):
            self.add_answers(Answers.joined(known), now_us)

    def _with_context(self, answers: Answers) -> tuple[Answers, Bools]:
        found = np.zeros(len(answers), bool)
        slices = {key: codes.copy() for key, codes in answers.slices.items()}
        left = []
        for since_us, request, codes in self._contexts:
            if not len(request):
                continue
            at = np.minimum(np.searchsorted(request, answers.request), len(request) - 1)
            hit = request[at] == answers.request
            for key, values in codes.items():
                slices[key][hit] = values[at[hit]]
            found |= hit
            rest = np.ones(len(request), bool)
            rest[at[hit]] = False
            left.append((since_us, request[rest], {key: values[rest] for key, values in codes.items()}))
        self._contexts = left
        return Answers(**{**vars(answers), "slices": slices}), found

    def _with_arm_of_request(self, calls: Calls, now_us: int) -> Calls:
        rows, _ = self._requests.find(calls.request, np.zeros(len(calls), np.uint32))
        known = rows >= 0
        if not known.all():
            self._waiting_calls.append((now_us, calls.where(~known)))
            while sum(len(c) for _, c in self._waiting_calls) > self._limits.waiting:
                self._waiting_calls.pop(0)  # of requests that are not in the experiment
        arms = self._requests["arm"][rows[known]].astype(np.int64)
        return Calls(**{**vars(calls.where(known)), "arm": arms})

    def _retry_calls(self, now_us: int) -> None:
        waiting, self._waiting_calls = self._waiting_calls, []
        for since_us, calls in waiting:
            if now_us - since_us < PATIENCE_US:
                self.add_calls(calls, since_us)

    def _bound_requests(self) -> None:
        """When there are too many, the older half goes, though events may still name them."""
        size = len(self._requests)
        if size > self._limits.requests:
            times = self._requests["time_us"]
            self._requests.forget(int(np.partition(times, size // 2)[size // 2]) + 1)
            self.counts["forgotten"] += size - len(self._requests)


def event_of(metric: Metric) -> str:
    return metric.event or "click"


def _by_unit(metrics: Sequence[Metric]) -> dict[str, Column]:
    return {m.name: Column(once=m.kind == "event_rate") for m in metrics}


def _figures(metric: Metric, calls: Calls) -> tuple[Floats, Floats | None]:
    """Numerator and denominator of each attempt; None: each counts as one."""
    ok = calls.ok * 1.0
    match metric.kind:
        case "error_rate":
            return 1.0 - ok, None
        case "latency_over":
            return (calls.ms > (metric.limit_ms or 0.0)) * 1.0, None
        case "degradation":
            best = DEGRADATIONS.index(metric.rung) if metric.rung in DEGRADATIONS else 0
            return (calls.ok & (calls.rung > best)) * 1.0, ok
        case "empty":
            return (calls.ok & (calls.n_items == 0)) * 1.0, ok
        case "schema":
            return (~calls.schema_ok) * 1.0, None
        case "score_range":
            low, high = metric.range or (-np.inf, np.inf)
            there = calls.ok & (calls.n_items > 0)
            outside = ~((calls.score_min >= low) & (calls.score_max <= high))  # a score that is no number is outside
            return (there & outside) * 1.0, there * 1.0
        case "score_correlation":
            return np.nan_to_num(calls.correlation), np.isfinite(calls.correlation) * 1.0
        case "score_shift":
            return np.nan_to_num(calls.shift), np.isfinite(calls.shift) * 1.0
        case _:
            return np.nan_to_num(calls.overlap), np.isfinite(calls.overlap) * 1.0


def _filled(values: Ints, length: int, fill: int) -> Ints:
    return np.concatenate((values, np.full(length - len(values), fill, values.dtype)))
