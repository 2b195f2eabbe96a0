"""What the streams of one ranker say, as signals: `drift.online` sums them up, `drift.online.NAME` is each that is not
well. Pure."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime

from monitoring.drift.stream.listen import Heard
from monitoring.signals import Signal, Verdict

WHOLE = "drift.online"


@dataclass(frozen=True, slots=True)
class StreamReport:
    """model: as signals name the ranker. why: nothing can be judged."""

    model: str
    at_us: int
    heard: Sequence[Heard] = ()
    why: str = ""

    def signals(self) -> list[Signal]:
        told = [self._told(one) for one in self.heard if one.why or one.alarm_us is not None]
        found = [signal for signal in told if signal.verdict == "breach"]
        judged = [one for one in self.heard if not one.why]
        verdict: Verdict = "breach" if found else "ok" if judged else "inconclusive"
        cause = ", ".join(signal.name.removeprefix(f"{WHOLE}.") for signal in found)
        if verdict == "inconclusive":
            cause = self.why or next((f"{one.name}: {one.why}" for one in self.heard), "there is nothing to judge")
        since_us = min((s.since for s in found if s.since is not None), default=None)
        whole = Signal(WHOLE, self.model, verdict, self.at_us, float(len(found)), 0.0, since_us, cause)
        return [*told, whole if judged else replace(whole, value=None, threshold=None)]

    def _told(self, one: Heard) -> Signal:
        name = f"{WHOLE}.{one.name}"
        if one.alarm_us is None:
            return Signal(name, self.model, "inconclusive", self.at_us, cause=one.why)
        moved = f"{one.name} {one.before:.4g} to {one.now:.4g}"
        cause = f"{moved}, found by {one.detector} at {_moment(one.alarm_us)}, {one.requests:,} requests after it began"
        details = {key: value for key, value in asdict(one).items() if key not in ("name", "why")}
        return Signal(
            name, self.model, "breach", self.at_us, one.statistic, one.threshold, one.since_us, cause, details
        )


def _moment(at_us: int) -> str:
    return datetime.fromtimestamp(at_us / 1e6, UTC).isoformat(sep=" ", timespec="seconds")
