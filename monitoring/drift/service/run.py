"""The drift run over the service's own logs: a window, ranker by ranker, each against what its own training saw."""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from contracts.errors import StreamRecError
from contracts.settings import Settings
from features.frame import FEATURES
from monitoring.drift.base import ALPHA, Engine, Result, inconclusive
from monitoring.drift.correction import correct
from monitoring.drift.engines.choose import choose
from monitoring.drift.service.judgement import Judgement, judgement
from monitoring.drift.service.outcomes import Labelled, concept
from monitoring.drift.service.report import DriftReport
from monitoring.drift.service.season import SEASONS, SeasonName, past_windows
from monitoring.drift.service.severity import Outcomes
from monitoring.drift.service.thinned import one_per_user
from monitoring.drift.service.vectors import embeddings, served_vectors
from monitoring.drift.service.window import COLUMNS, Gathered, Served, gather
from monitoring.frames.reference import Reference, load_reference
from registry.artifacts import model_name

SLICINGS = ("country", "device", "category")
BASELINE_TIMES = 4  # windows before this one that clicks are compared with
_STORED = re.compile(r"^v\d+-[0-9a-f]{8}$")

# (since_us, until_us) → rows with `user_id`, `label` (null: not known yet), `score`, `position`, slice columns.
LabelSource = Callable[[int, int, str], pa.Table]


def drift_run(
    settings: Settings,
    since_us: int,
    until_us: int,
    *,
    now_us: int,
    season: SeasonName | None = None,
    engine: str | None = None,
    labels: LabelSource | None = None,
    reference: Callable[[Served], Reference] | None = None,
    seed: int = 0,
    alpha: float = ALPHA,
) -> list[DriftReport]:
    """A report for each ranker that served in the window, the one that showed most first.

    Args:
        season: against which past it is excused; None: only training. labels: None: concept is not judged.
        reference: of a served ranker; default: the registry's.
    """
    tests = choose(engine)
    gathered = gather(settings.home, since_us, until_us, now_us=now_us, seed=seed)
    window = (since_us, until_us)
    if not gathered.rows:
        why = "no answer of the window was logged" + ("".join(f"; {p}" for p in gathered.problems[:1]))
        return [DriftReport("", (), *window, now_us, 0, 0, None, why=why, problems=tuple(gathered.problems))]
    past, no_past = _past(settings.home, gathered, season, now_us, seed)
    find = reference or (lambda served: _reference(served, settings))
    reports = []
    for served in sorted(gathered.by_ranker.values(), key=lambda s: -s.rows):
        common: dict[str, Any] = {
            "bentos": tuple(name for name, _ in served.bentos.most_common() if name),
            "since_us": since_us,
            "until_us": until_us,
            "at_us": now_us,
            "rows": served.rows,
            "logged": served.logged,
            "season": SEASONS[season].words if season else "",
        }
        try:
            trained = find(served)
        except (StreamRecError, OSError) as error:
            why = f"no reference: {getattr(error, 'message', error)}"
            reports.append(DriftReport(_named(served), judged=None, why=why, problems=_all(gathered), **common))
            continue
        model = trained.model.removeprefix("models:/") or trained.run_id or _named(served)
        common |= {"run_id": trained.run_id}
        problems, current = _current(served, trained)
        if current is None:
            why = problems.pop()
            reports.append(DriftReport(model, judged=None, why=why, problems=(*_all(gathered), *problems), **common))
            continue
        found, notes = _outcomes(labels, window, served.ranker, alpha)
        judged = _judged(settings, served, trained, current, tests, past, no_past, found, seed=seed, alpha=alpha)
        said = (*_all(gathered), *problems, *notes)
        reports.append(DriftReport(model, judged=judged, concept=found, problems=said, **common))
    return reports


def _judged(
    settings: Settings,
    served: Served,
    trained: Reference,
    current: pa.Table,
    tests: Engine,
    past: pa.Table | None,
    no_past: str,
    outcomes: Mapping[str, Result],
    *,
    seed: int,
    alpha: float,
) -> Judgement:
    # As deep as the slates of the window: a longer slate has lower scores.
    rows = trained.shown
    deepest = pc.max(current["position"]).as_py() if current.num_rows else None
    if deepest is not None and trained.origin == "slate":
        rows = rows.filter(pc.less_equal(rows["position"], deepest))
    reference = one_per_user(rows, tuple(rows.column_names), seed=seed)
    bento = served.bentos.most_common(1)[0][0] if served.bentos else ""
    vectors = served_vectors(settings.home, bento)
    further = embeddings(reference, current, trained.embeddings, vectors, engine=tests, seed=seed)
    further |= {f"concept.{name}": result for name, result in outcomes.items()}
    return judgement(
        reference,
        current,
        FEATURES,
        engine=tests,
        season=past,
        no_season=no_past,
        further=further,
        outcomes=_moved(outcomes, alpha),
        importance=trained.importance,
        slicings=SLICINGS,
        seed=seed,
        alpha=alpha,
    )


def _moved(outcomes: Mapping[str, Result], alpha: float) -> Outcomes:
    verdicts = {r.drift for r in correct(outcomes, alpha).values()}
    return "moved" if "drift" in verdicts else "as before" if "none" in verdicts else "not known"


def _current(served: Served, trained: Reference) -> tuple[list[str], pa.Table | None]:
    """The window's rows of one a user, and what was left out; None: the last problem says why there are none."""
    problems = []
    hashes = served.feature_hashes
    strange = [h for h in hashes if h and h != trained.feature_hash]
    if strange and sum(hashes[h] for h in strange) == served.rows:
        why = f"served with feature definitions {strange[0][:12]}, trained with {trained.feature_hash[:12]}"
        return [f"the reference is of other features: {why}"], None
    if strange:
        share = sum(hashes[h] for h in strange) / served.rows
        problems.append(f"{share:.1%} of the shown items were served with other feature definitions than training's")
    if not served.logged:
        return [*problems, "no row of what the ranker read was kept: see the settings log_contexts and log_rows"], None
    return problems, served.sample.table()


def _past(
    home: Path, gathered: Gathered, season: SeasonName | None, now_us: int, seed: int
) -> tuple[pa.Table | None, str]:
    """One row a user of the same times before, or why there are none."""
    if season is None or gathered.since_us is None or gathered.until_us is None:
        return None, ""
    try:
        windows = list(past_windows(gathered.since_us, gathered.until_us, SEASONS[season]))
    except ValueError as error:
        return None, str(error)
    tables = []
    for since_us, until_us in windows:
        then = gather(home, since_us, until_us, now_us=now_us, seed=seed, apart=False)
        tables += [served.sample.table() for served in then.by_ranker.values() if served.logged]
    if not tables:
        return None, f"the season is not known: nothing was logged in {SEASONS[season].words}"
    whole_past = pa.concat_tables(tables, promote_options="default")
    return one_per_user(whole_past, COLUMNS, seed=seed), ""


def _outcomes(
    labels: LabelSource | None, window: tuple[int, int], ranker: str, alpha: float
) -> tuple[dict[str, Result], list[str]]:
    """Clicks of the window against those of the windows before it, by this ranker."""
    if labels is None:
        return {}, []
    since_us, until_us = window
    before_us = since_us - BASELINE_TIMES * (until_us - since_us)
    try:
        sides = [
            Labelled.of(labels(*times, ranker), SLICINGS) for times in ((before_us, since_us), (since_us, until_us))
        ]
    except (StreamRecError, OSError, pa.ArrowException) as error:
        why = f"outcomes cannot be read: {error}"
        return {"ctr": inconclusive("ratio over users", why, weighs=False)}, [why]
    return concept(*sides, alpha=alpha), []


def _reference(served: Served, settings: Settings) -> Reference:
    """By the ranker's tag, else by the Bento."""
    if _STORED.match(served.ranker):
        return load_reference(settings.home, f"{model_name('ranking')}:{served.ranker}", settings=settings)
    bento = served.bentos.most_common(1)[0][0] if served.bentos else None
    return load_reference(settings.home, bento or None, settings=settings)


def _named(served: Served) -> str:
    return f"{model_name('ranking')}:{served.ranker}" if served.ranker else "no ranker"


def _all(gathered: Gathered) -> tuple[str, ...]:
    return tuple(gathered.problems)
