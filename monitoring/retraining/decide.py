"""Whether to train, and why: typed rules over signals, then the bounds on all trainings. Pure.

Three-valued: a rule whose signals are missing, too old or `inconclusive` says nothing, and where no other rule asks for
a training the answer is `inconclusive`, never `no`. There is no schedule: an old model that no rule objects to stays.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from typing import Any, Literal

from monitoring.signals import Signal
from monitoring.watch.schema import Retraining, Rule

HOUR_US = 3_600_000_000
WEEK_US, MONTH_US = 7 * 24 * HOUR_US, 30 * 24 * HOUR_US
FORGOTTEN_US = 26 * HOUR_US  # a signal that is older says nothing of now

Answer = Literal["yes", "no", "inconclusive"]
Action = Literal["train", "batch"]


@dataclass(frozen=True, slots=True)
class RuleSaid:
    rule: str
    answer: Answer
    why: str
    action: Action = "train"


@dataclass(frozen=True, slots=True)
class Data:
    """What `data export` gave since the model was trained: users' events, impressions."""

    events: int
    impressions: int


@dataclass(frozen=True, slots=True)
class Ruling:
    """rules: what each said. blocked: bounds that forbid what a rule asks for. next_us: when they end, if known."""

    answer: Answer
    action: Action | None
    why: str
    rules: tuple[RuleSaid, ...] = ()
    blocked: tuple[str, ...] = ()
    next_us: int | None = None

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def decide(
    policy: Retraining,
    signals: Sequence[Signal],
    runs: Sequence[Mapping[str, Any]],
    now_us: int,
    *,
    release_under_way: str = "",
    data: Data | str | None = None,
) -> Ruling:
    """
    Args:
        signals: the last of each name, of the champion and of the service.
        runs: of the history, oldest first.
        data: what there is to learn from; words: why that is not known; None: not looked at yet (it is exported only
            when a rule asks for a training).
    """
    said = tuple(_of_rule(rule, signals, now_us) for rule in policy.rules)
    asking = [rule for rule in said if rule.answer == "yes"]
    if not said:
        return Ruling("no", None, "the policy has no rules", said)
    if not asking:
        unknown = [f"{rule.rule}: {rule.why}" for rule in said if rule.answer == "inconclusive"]
        if unknown:
            return Ruling("inconclusive", None, f"no rule asks for it, but {'; '.join(unknown)}", said)
        return Ruling("no", None, "no rule asks for it", said)
    first = next((rule for rule in asking if rule.action == "train"), asking[0])  # lists follow a new model anyway
    why = "; ".join(f"{rule.rule}: {rule.why}" for rule in asking)
    blocked, next_us = _bounds(policy, first.action, runs, now_us, release_under_way)
    if blocked:
        return Ruling("no", first.action, f"{why}; but {'; '.join(blocked)}", said, tuple(blocked), next_us)
    if first.action == "train" and data is not None:
        if isinstance(data, str):
            return Ruling("inconclusive", "train", f"{why}; but what there is to learn is not known: {data}", said)
        if data.events < policy.least_events:
            short = f"{data.events:,} events to learn from, {policy.least_events:,} are needed"
            return Ruling("no", "train", f"{why}; but {short}", said, (short,))
    return Ruling("yes", first.action, why, said)


def _of_rule(rule: Rule, signals: Sequence[Signal], now_us: int) -> RuleSaid:
    fitting = [s for s in signals if _fits(s.name, rule.signals) and now_us - s.at <= FORGOTTEN_US]
    wanted = ", ".join(rule.signals)
    if not fitting:
        return RuleSaid(rule.name, "inconclusive", f"nothing is known of {wanted}", rule.action)
    if rule.max_hours is not None:
        return _of_age(rule, fitting, rule.max_hours)
    breaches = [s for s in fitting if s.verdict == "breach"]
    # By looks that found it: a check of 24 h may well say that it began a day ago, at the first one.
    lasting = [s for s in breaches if s.lasted_us >= rule.for_hours * HOUR_US]
    if len(lasting) >= rule.least:
        together = [s for s in signals if _fits(s.name, rule.only_with) and now_us - s.at <= FORGOTTEN_US]
        if rule.only_with and not any(s.verdict == "breach" for s in together):
            names = ", ".join(rule.only_with)
            if not together or any(s.verdict == "inconclusive" for s in together):
                return RuleSaid(
                    rule.name, "inconclusive", f"{_names(lasting)}, but {names} cannot be told", rule.action
                )
            return RuleSaid(rule.name, "no", f"{_names(lasting)}, but {names} is well", rule.action)
        return RuleSaid(rule.name, "yes", _names(lasting), rule.action)
    blind = [s for s in fitting if s.verdict == "inconclusive"]
    if len(lasting) + len(blind) >= rule.least and blind:
        return RuleSaid(rule.name, "inconclusive", f"{_names(blind)}: {blind[0].cause}", rule.action)
    if breaches:
        words = f"{_names(breaches)}: {rule.least} are needed for {rule.for_hours:g} h"
        return RuleSaid(rule.name, "no", words, rule.action)
    return RuleSaid(rule.name, "no", f"{len(fitting)} of {wanted} are well", rule.action)


def _of_age(rule: Rule, fitting: Sequence[Signal], most: float) -> RuleSaid:
    known = [s for s in fitting if s.value is not None and s.verdict != "inconclusive"]
    if not known:
        return RuleSaid(rule.name, "inconclusive", fitting[0].cause, rule.action)
    oldest = max(known, key=lambda s: s.value or 0.0)
    words = f"{oldest.name} is {oldest.value:.1f} h, at most {most:g} h"
    return RuleSaid(rule.name, "yes" if (oldest.value or 0.0) > most else "no", words, rule.action)


def _bounds(
    policy: Retraining, action: Action, runs: Sequence[Mapping[str, Any]], now_us: int, release_under_way: str
) -> tuple[list[str], int | None]:
    """Why not now, in words; and when it may be, where that is known."""
    found: list[str] = []
    until: list[int] = []
    if running := [run for run in runs if run["state"] == "running"]:
        found.append(f"{running[-1]['id']} is under way")
    mine = [run for run in runs if run["action"] == action]
    ended = [run for run in mine if run.get("ended_us")]
    if ended:
        free_us = int(ended[-1]["ended_us"]) + int(policy.cool_down_hours * HOUR_US)
        if now_us < free_us:
            found.append(f"the cool-down lasts {(free_us - now_us) / HOUR_US:.1f} h more")
            until.append(free_us)
    if action == "batch":
        return found, max(until, default=None)
    if release_under_way:
        found.append(f"release {release_under_way} is under way")
    week = [run for run in mine if now_us - int(run["began_us"]) < WEEK_US]
    if len(week) >= policy.most_a_week:
        found.append(f"{len(week)} trainings within a week, at most {policy.most_a_week}")
        until.append(int(week[-policy.most_a_week]["began_us"]) + WEEK_US if policy.most_a_week else now_us + WEEK_US)
    hours = sum(float(run.get("cpu_s") or 0) for run in runs if now_us - int(run["began_us"]) < MONTH_US) / 3600
    if hours >= policy.cpu_hours_a_month:
        found.append(f"{hours:.1f} CPU hours within 30 days, the budget is {policy.cpu_hours_a_month:g}")
    row = [run["state"] for run in ended[-policy.failures :]]
    if len(row) == policy.failures and set(row) == {"failed"}:
        found.append(
            f"the last {policy.failures} trainings failed: a person must look, and then"
            " streamrec monitor retrain-check --forgive"
        )
    return found, max(until, default=None)


def _fits(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _names(signals: Sequence[Signal], most: int = 4) -> str:
    names = [f"{s.name} is in {s.verdict}" if s.verdict == "breach" else s.name for s in signals[:most]]
    return ", ".join(names) + (f" and {len(signals) - most} more" if len(signals) > most else "")
