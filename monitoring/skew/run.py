"""`monitor skew`: a window of answers against what its ranker was trained on."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path

import pyarrow as pa

from bentos.telemetry.event_log import read_events
from contracts.dataset import DatasetConfig
from contracts.errors import ArtifactError, NotFound, StreamRecError
from contracts.settings import Settings
from contracts.user_keys import UserKeys
from features.registry import REGISTRY
from features.resolve import LAST_10
from monitoring.frames.reference import Reference, load_reference
from monitoring.signals import Verdict
from monitoring.skew.labels import LABEL, compare_labels
from monitoring.skew.limits import Limits
from monitoring.skew.offline import OncePerPair, open_offline, users_of
from monitoring.skew.report import SkewReport, judged
from monitoring.skew.rows import Logged, RowsCompared, RowSkew, compare_feature, compare_interactions
from monitoring.skew.sample import ITEM_FEATURES, Answered, named, sample
from monitoring.skew.served import rankers_of, served
from monitoring.skew.statistics import FeatureSkew, compare
from registry.lineage import SNAPSHOTS
from registry.models import Registry
from registry.versions import ModelRef, ModelVersion

ROWS = 200
USER_FEATURES = tuple(d.name for d in REGISTRY.of("user") if d.kind == "batch" and d.dtype in ("float", "weights"))


def skew(
    settings: Settings,
    *,
    since_us: int | None,
    until_us: int | None,
    now_us: int,
    rows: int = ROWS,
    model: str | None = None,
    data: Path | None = None,
    seed: int = 0,
) -> SkewReport:
    """
    Args:
        since_us, until_us: the window, wall clock; None: no bound.
        rows: answers whose features are compared one by one with the offline join; 0: none.
        model: a version of the ranker; default: the one that answered most in the window.
        data: the data set of the offline join; default: the snapshot that the model was trained on.

    What cannot be compared is a verdict of its own, `inconclusive` with the reason, and the rest goes on.

    Raises:
        NotFound, UsageError: there is no such `model`.
    """
    limits = Limits.of(settings)
    problems: list[str] = []
    answers = n = users = 0
    features: list[FeatureSkew] = []
    compared: RowsCompared | None = None
    name = ""

    def report(verdict: Verdict, why: str) -> SkewReport:
        return SkewReport(
            verdict, why, name, since_us, until_us, now_us, answers, n, users, limits, tuple(features), compared,
            tuple(problems), left_out,
        )  # fmt: skip

    left_out: dict[str, int] = {}
    counted = rankers_of(settings.home, since_us, until_us)
    answers = sum(counted.values())
    if not counted:
        return report("inconclusive", "nothing was answered in this window")
    registry = Registry.open(settings)
    try:
        version, ranking = _ranker(registry, model, counted)
        name = f"{version.name}/{version.number}"
        reference = load_reference(settings.home, version.uri, settings=settings)
    except (NotFound, ArtifactError) as error:
        if model is not None and isinstance(error, NotFound):
            raise
        return report("inconclusive", error.message)
    others = answers - counted[ranking]
    if others:
        problems.append(f"{others} of {answers} answers are of other rankers: they are not looked at")
    summed = served(
        settings.home,
        ranking,
        since_us=since_us,
        until_us=until_us,
        feature_hash=reference.feature_hash,
        trained_until_us=reference.trained_until_us,
        now_us=now_us,
        seed=seed,
    )
    problems += summed.problems
    left_out = summed.left_out
    n, users = summed.rows, summed.users
    if reference.origin != "slate":
        problems.append("the reference is of candidates, not of slates: what ranking selects for looks like a shift")
    if n:
        features = compare(
            reference.summaries,
            summed.summaries,
            training_users=reference.users,
            served_users=users,
            limits=limits,
            unread=reference.unread,
            importance=reference.importance,
            troubles=summed.troubles,
        )
    if rows:
        compared = compare_rows(
            settings, registry, reference, ranking, counted, since_us, until_us, n=rows, data=data, limits=limits,
            seed=seed,
        )  # fmt: skip
        problems += [p for p in compared.problems if p not in problems]
    if not n and (compared is None or compared.verdict != "breach"):
        reason = "; ".join(f"{rows} rows {what}" for what, rows in left_out.items())
        return report(
            "inconclusive", reason or "no answer of this ranker has its features logged (log_contexts, log_rows)"
        )
    return report(*judged(features, compared))


def compare_rows(
    settings: Settings,
    registry: Registry,
    reference: Reference,
    ranking: str,
    counted: Mapping[str, int],
    since_us: int | None,
    until_us: int | None,
    *,
    n: int,
    data: Path | None,
    limits: Limits,
    seed: int,
) -> RowsCompared:
    """Logged values of `n` answers against the offline join, feature by feature."""
    folder = data or settings.home / SNAPSHOTS / reference.snapshot
    answers, problems = sample(settings.home, ranking, since_us=since_us, until_us=until_us, n=n, seed=seed)
    found: list[RowSkew] = []
    if not answers:
        return RowsCompared(0, str(folder), "inconclusive", "no context record of this ranker", (), tuple(problems))
    try:
        own = read_events(settings.home, event_log=settings.event_log)
        keys = UserKeys.of(settings.user_keys)
        users = {*users_of(folder), *own["user_id"].to_pylist()} if keys else ()
        answers, hidden = named(answers, users, keys)
        if hidden:
            problems.append(f"{hidden} answers are of users hidden by key, whom the offline join does not know")
        found += _of_users(folder, own, answers, limits)
        found += _of_items(folder, own, answers, limits)
        found += _of_labels(folder, own, registry, reference, since_us, until_us, limits)
    except StreamRecError as error:
        problems.append(f"offline join over {folder}: {error.message}")
    broken = [one.feature for one in found if one.verdict == "breach"]
    if broken:
        verdict: Verdict = "breach"
        why = f"rows of {', '.join(broken)}"
    elif any(one.verdict == "ok" for one in found):
        verdict, why = "ok", ""
    else:
        verdict, why = "inconclusive", problems[-1] if problems else "too few values to compare"
    return RowsCompared(len(answers), str(folder), verdict, why, tuple(found), tuple(problems))


def _of_users(folder: Path, own: pa.Table, answers: list[Answered], limits: Limits) -> list[RowSkew]:
    found = []
    users = sorted({answer.user_id for answer in answers})
    with open_offline(folder, own, user_ids=users) as offline:
        for name in USER_FEATURES:
            logged = [v for answer in answers if (v := answer.user_value(name)) is not None]
            look = partial(offline.user, name)
            found.append(compare_feature(REGISTRY[name], logged, look, limit=limits.rows))
        last = [v for answer in answers if (v := answer.interactions(LAST_10)) is not None]
        truth = offline.interactions([(v.entity, v.clock_us) for v in last])
    received = {
        f"{item}\t{event}\t{at}": when
        for item, event, at, when in zip(
            *(own[c].to_pylist() for c in ("item_id", "event", "timestamp_us", "received_us")), strict=True
        )
    }
    found.append(compare_interactions(LAST_10, last, truth, received, limit=limits.rows))
    return found


def _of_items(folder: Path, own: pa.Table, answers: list[Answered], limits: Limits) -> list[RowSkew]:
    logged: dict[str, list[Logged]] = {
        name: [v for answer in answers for v in answer.item_values(name)] for name in ITEM_FEATURES
    }
    ids = sorted({value.entity for values in logged.values() for value in values})
    if not ids:
        return []
    found = []
    with open_offline(folder, own, item_ids=ids) as offline:
        remembered = OncePerPair(offline)
        for name, values in logged.items():
            if values:
                look = partial(remembered, name)
                found.append(compare_feature(REGISTRY[name], values, look, limit=limits.rows, at_stamp=True))
    return found


def _of_labels(
    folder: Path,
    own: pa.Table,
    registry: Registry,
    reference: Reference,
    since_us: int | None,
    until_us: int | None,
    limits: Limits,
) -> list[RowSkew]:
    """By the meaning that the retrieval model of the same training carries, and that of the data."""
    low, high = since_us or 0, until_us or 1 << 62
    at = own["timestamp_us"].to_numpy()
    events = own.filter(pa.array((at >= low) & (at < high)))
    if not events.num_rows:
        return [RowSkew(LABEL, "inconclusive", 0, 0, 0, "", "no event came in this window")]
    version = next((v for v in registry.versions("retrieval") if v.run_id == reference.run_id), None)
    meaning = None if version is None else registry.bundle(version).manifest.params.get("meaning")
    if not meaning:
        return [RowSkew(LABEL, "inconclusive", 0, 0, 0, "", "the model does not say what events mean to it")]
    serving = DatasetConfig.model_validate({"name": "bundle", **meaning})
    return [compare_labels(events, DatasetConfig.read(folder), serving, limit=limits.rows)]


def _ranker(registry: Registry, model: str | None, counted: Mapping[str, int]) -> tuple[ModelVersion, str]:
    """The version, and how answers name it (`v3-1a2b3c4d`)."""
    if model is not None:
        version = registry.resolve(model, "ranking")
        tag = f"v{version.number}-"
        return version, next((name for name in counted if name.startswith(tag)), tag)
    ranking = max(counted, key=lambda name: (counted[name], name))
    number = ranking.removeprefix("v").partition("-")[0]
    if not number.isdigit():
        raise NotFound(f"answers name no registered ranker ({ranking or 'nothing'}): what it learned from is not known")
    return registry.resolve(ModelRef("ranking", None, int(number))), ranking
