"""Events joined to what they answer to: every shown item with its label, once the time to act on it has passed.

An event counts for the item of the answer that it names (`request_id`), if that item was in its slate, the same user
sent it, and it came within the rule's `attribution_h` after the answer. Of several the earliest positive counts, once.
An exposure's label is known when it is `mature`: when every window of the rule has passed, and `late_h` more, since
events may be sent late. Until then it is null, also where a positive has come already: to count the quick ones alone
would make every young window look better than it is.

Request and item say which place of which slate is meant. An event that names its `position` besides, and another one
than the slate has the item at, still counts, since the item is what was acted on; `misplaced` counts it, as clicks by
position are not to be trusted where a client shows slates in another order, or counts from 0.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from bentos.telemetry.event_log import read_events
from contracts.user_keys import UserKeys
from features.labels import LabelRule
from monitoring.frames.serving import Window

HOUR_US = 3_600_000_000
LATE_H = 1.0
EARLY_US = 5 * 60_000_000  # clocks of clients: an event may be that much before the answer that it names
_EVENTS = ("user_id", "item_id", "event", "timestamp_us", "request_id", "value", "position")


@dataclass(slots=True)
class Joined:
    """The shown items of a window with their labels; counts grow as `batches` is read.

    rows: shown items; mature: of them; positive: of the mature. events: how the positive events of the time went:
    `joined`, `repeated` (not the first for its item), `late` (after the rule's window), `early`, `not_shown` (the item
    was not in that slate), `another_user`, `no_request` (names no answer), `unknown_request` (names one that is not of
    this window). misplaced: of those joined or repeated, how many name another position than their item's.
    """

    rule: LabelRule
    window: Window
    now_us: int
    late_h: float
    acts: pa.Table
    keys: UserKeys | None = None
    rows: int = 0
    mature: int = 0
    positive: int = 0
    misplaced: int = 0
    events: Counter[str] = field(default_factory=Counter)

    @classmethod
    def open(
        cls,
        home: Path,
        rule: LabelRule,
        since_us: int | None = None,
        until_us: int | None = None,
        *,
        now_us: int,
        late_h: float = LATE_H,
        event_log: str = "sqlite",
        keys: UserKeys | None = None,
    ) -> "Joined":
        """Answers with `since_us` ≤ timestamp < `until_us`.

        keys: that hide users in the exposures. An event is of a user under whichever key the answer was logged, so a
        window may lie across a rotation, and across the moment from which on users were hidden at all.

        Raises:
            Unreachable: the event log is away.
        """
        after_us = None if until_us is None else until_us + int(rule.longest_h * HOUR_US)
        events = read_events(
            home, None if since_us is None else since_us - EARLY_US, after_us, event_log=event_log
        ).select(list(_EVENTS))
        place = rule.places(events["event"], events["value"])
        acts = events.append_column("rule", pa.array(place)).filter(pa.array(place >= 0)).sort_by("timestamp_us")
        return cls(rule, Window.open(home, since_us, until_us), now_us, late_h, acts, keys).counted()

    def counted(self) -> "Joined":
        """Events that name no answer are told apart at once; the others wait for theirs."""
        named = pc.fill_null(pc.not_equal(self.acts["request_id"], ""), False)
        self.events["no_request"] = self.acts.num_rows - (pc.sum(named).as_py() or 0)
        self.acts = self.acts.filter(named)
        self.events["unknown_request"] = self.acts.num_rows
        return self

    @property
    def problems(self) -> list[str]:
        found = self.window.problems
        if self.misplaced:
            said = f"{self.misplaced:,} events name another position than their item had in the slate"
            found.append(f"{said}: clicks by position are not to be trusted")
        return found

    def batches(self) -> Iterator[pa.Table]:
        """Rows of the serving frame (monitoring/frames/serving.py), each with `mature`, `label` (float64 0 or 1, null:
        not known yet), `label_event` and `label_lag_s` of the act that counted."""
        for table in self.window.batches():
            yield self._labelled(table)

    def table(self, columns: list[str] | None = None) -> pa.Table:
        """All of them; of a long window take few columns."""
        tables = [t if columns is None else t.select(columns) for t in self.batches()]
        return pa.concat_tables(tables, promote_options="default") if tables else pa.table({})

    def _labelled(self, shown: pa.Table) -> pa.Table:
        shown_us = np.asarray(shown["timestamp"].cast(pa.int64()).to_numpy())
        acts = self.acts.filter(pc.is_in(self.acts["request_id"], value_set=pc.unique(shown["request_id"])))
        self.events["unknown_request"] -= acts.num_rows
        row = self._rows_of(shown, acts)
        lag = np.asarray(acts["timestamp_us"].to_numpy()) - shown_us[row]
        place = np.asarray(acts["rule"].to_numpy())
        window_us = np.array([p.attribution_h * HOUR_US for p in self.rule.positives])
        ours = self._same_user(shown, acts, row)
        counts = {
            "not_shown": row < 0,
            "another_user": ~ours,
            "early": lag < -EARLY_US,
            "late": lag > window_us[place],
        }
        left = np.ones(len(row), bool)
        for name, gone in counts.items():
            self.events[name] += int((left & gone).sum())
            left &= ~gone
        said = np.asarray(acts["position"].cast(pa.float64()).to_numpy())  # NaN where the event does not say
        there = shown["position"].to_numpy()[row]
        self.misplaced += int((left & np.isfinite(said) & (said != there)).sum())
        first = np.flatnonzero(left)
        _, once = np.unique(row[first], return_index=True)  # acts are in the order of time
        self.events["joined"] += len(once)
        self.events["repeated"] += len(first) - len(once)
        first = first[once]
        label = np.zeros(shown.num_rows)
        label[row[first]] = 1.0
        mature = shown_us + int((self.rule.longest_h + self.late_h) * HOUR_US) <= self.now_us
        at = np.full(shown.num_rows, -1)
        at[row[first]] = first
        self.rows += shown.num_rows
        self.mature += int(mature.sum())
        self.positive += int(label[mature].sum())
        chosen = pa.array(at, mask=at < 0)
        return (
            shown.append_column("mature", pa.array(mature))
            .append_column("label", pa.array(label, mask=~mature))
            .append_column("label_event", acts["event"].take(chosen))
            .append_column("label_lag_s", pc.divide(pa.chunked_array([lag / 1e6], pa.float64()).take(chosen), 1.0))
        )

    def _rows_of(self, shown: pa.Table, acts: pa.Table) -> NDArray[np.int64]:
        """Row of the item that each act is about, int64; -1: not in that slate."""
        keys = pc.binary_join_element_wise(shown["request_id"], shown["item_id"], "\x1f")
        wanted = pc.binary_join_element_wise(acts["request_id"], acts["item_id"], "\x1f")
        found = pc.index_in(wanted, value_set=keys)
        return np.asarray(pc.fill_null(found, -1).to_numpy(), np.int64)

    def _same_user(self, shown: pa.Table, acts: pa.Table, row: NDArray[np.int64]) -> NDArray[np.bool_]:
        distinct = pc.dictionary_encode(acts["user_id"]).combine_chunks() if acts.num_rows else None
        if distinct is None:
            return np.zeros(0, bool)
        logged = shown["user_id"].combine_chunks().take(pa.array(row, mask=row < 0))
        users = distinct.dictionary.to_pylist()
        called = zip(*(self.keys.every(user) for user in users), strict=True) if self.keys else [users]
        same = np.zeros(len(row), bool)
        for names in called:
            found = pc.equal(pa.array(names, pa.string()).take(distinct.indices), logged)
            same |= np.asarray(pc.fill_null(found, False).to_numpy(zero_copy_only=False), bool)
        return same
