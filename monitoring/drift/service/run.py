"""The drift run over the service's own logs: a window, ranker by ranker, each against what its own training saw."""

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from contracts.errors import StreamRecError
from contracts.settings import Settings
from features.frame import FEATURES
from monitoring.drift.base import ALPHA, Engine, Result, inconclusive
from monitoring.drift.engines.choose import choose
from monitoring.drift.service.anchored import anchored
from monitoring.drift.service.judgement import judgement
from monitoring.drift.service.labelled import SLICINGS, LabelSource, own_labels
from monitoring.drift.service.outcomes import Labelled, concept
from monitoring.drift.service.report import DriftReport
from monitoring.drift.service.season import SEASONS, SeasonName, past_windows, unlogged
from monitoring.drift.service.thinned import one_per_user
from monitoring.drift.service.vectors import embeddings, served_vectors
from monitoring.drift.service.window import COLUMNS, Gathered, Served, gather
from monitoring.frames.reference import Reference, load_reference
from monitoring.reports.page import log_page, page_name, write_page
from monitoring.reports.window import rankings
from registry.artifacts import model_name
from registry.bento_store import stored_bento
from registry.lineage import pinned_uris

LOGGED = "drift.html"  # in MLflow, of each model the newest page alone: a run has no room that ends
_STORED = re.compile(r"^v\d+-[0-9a-f]{8}$")


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
    pages: Path | None = None,
    seed: int = 0,
    alpha: float = ALPHA,
) -> list[DriftReport]:
    """A report for each ranker that served in the window, the one that showed most first. What cannot be judged is
    `inconclusive` with the reason, and the rest goes on.

    Args:
        season: against which past it is excused; None: only training. labels: default: of the home's own log.
        reference: of a served ranker; default: the registry's. pages: where a drift gets a page for people.

    Raises:
        UsageError: there is no such engine.
    """
    tests = choose(engine)
    gathered = gather(settings.home, since_us, until_us, now_us=now_us, seed=seed)
    window = (since_us, until_us, now_us)
    said = tuple(gathered.problems)
    if not gathered.rows:
        why = "; ".join(["no answer of the window was logged", *([gathered.doubt] if gathered.doubt else said[:1])])
        return [DriftReport("", (), *window, 0, 0, None, why=why, problems=said)]
    past, no_past = _past(settings, gathered, season, now_us, seed)
    run = _Run(settings, *window, tests, past, no_past, labels, seed, alpha)
    reports = []
    for parts in gathered.rankers:
        trained, why = trained_of(parts[0], settings, reference)
        bentos = sum((part.bentos for part in parts), Counter())
        report = DriftReport(
            trained.model.removeprefix("models:/") if trained and trained.model else called(parts[0], bentos, settings),
            tuple(name for name, _ in bentos.most_common() if name),
            *window,
            sum(part.rows for part in parts),
            sum(part.logged for part in parts),
            None,
            why=why,
            season=SEASONS[season].words if season else "",
            problems=said,
            run_id=trained.run_id if trained else "",
            ranker=parts[0].ranker,
            doubt=gathered.doubt,
        )
        if trained is not None:
            report = run.judge(report, parts, trained)
        reports.append(with_page(settings, report, pages) if pages and report.verdict == "drift" else report)
    return reports


@dataclass(frozen=True, slots=True)
class _Run:
    settings: Settings
    since_us: int
    until_us: int
    now_us: int
    tests: Engine
    past: pa.Table | None
    no_past: str
    labels: LabelSource | None
    seed: int
    alpha: float

    def judge(self, report: DriftReport, parts: Sequence[Served], trained: Reference) -> DriftReport:
        mine = next((part for part in parts if part.feature_hash in (trained.feature_hash, "")), None)
        if mine is None:
            hashes = f"served with {parts[0].feature_hash[:12]}, trained with {trained.feature_hash[:12]}"
            return replace(report, why=f"the reference is of other feature definitions: {hashes}")
        others = report.rows - mine.rows
        if others:
            left_out = f"{others:,} shown items were served with other feature definitions than training's: left out"
            report = replace(report, problems=(*report.problems, left_out))
        if not mine.logged:
            return replace(report, why="no row of what the ranker read was kept (settings log_contexts, log_rows)")
        try:
            reference = self._reference_rows(trained, mine.sample.table())
        except StreamRecError as error:
            return replace(report, why=error.message)
        current = mine.sample.table()
        bento = mine.bentos.most_common(1)[0][0]
        outcomes = self._outcomes(mine.ranker, bento)
        vectors = served_vectors(self.settings.home, bento)
        further = embeddings(reference, current, trained.embeddings, vectors, engine=self.tests, seed=self.seed)
        judged = judgement(
            reference,
            current,
            FEATURES,
            engine=self.tests,
            season=self.past,
            no_season=self.no_past,
            further={**further, **{f"concept.{name}": result for name, result in outcomes.items()}},
            importance=trained.importance,
            slicings=SLICINGS,
            seed=self.seed,
            alpha=self.alpha,
        )
        return replace(
            report,
            judged=judged,
            concept=outcomes,
            samples=(reference, current),
        )

    def _reference_rows(self, trained: Reference, current: pa.Table) -> pa.Table:
        """One row of each user of training, from places that the window has too: a deeper slate has lower scores."""
        rows = trained.shown
        deepest = pc.max(current["position"]).as_py()
        if deepest is not None and trained.origin == "slate":
            rows = rows.filter(pc.less_equal(rows["position"], deepest))
        return one_per_user(rows, tuple(rows.column_names), seed=self.seed)

    def _outcomes(self, ranker: str, bento: str) -> dict[str, Result]:
        """Clicks of the window against those of the ranker's first window of that length."""
        try:
            labels = self.labels or own_labels(self.settings, bento, now_us=self.now_us)
            sides = anchored(self.settings.home, labels, ranker, bento, self.since_us, self.until_us)
        except (StreamRecError, OSError, pa.ArrowException) as error:
            sides = f"what people did cannot be read: {getattr(error, 'message', error)}"
        if isinstance(sides, str):
            return {"ctr": inconclusive("ratio over users", sides, weighs=False)}
        before, now = sides
        found = concept(Labelled.of(before, SLICINGS), Labelled.of(now, SLICINGS), alpha=self.alpha)
        # That labels are not yet known is no gap in what can be said of inputs.
        return {n: replace(r, weighs=False) if r.drift == "inconclusive" else r for n, r in found.items()}


def with_page(settings: Settings, report: DriftReport, folder: Path) -> DriftReport:
    """With its page written, and logged under the model's run. A page that cannot be written is a problem, no more."""
    page = folder / page_name(report)
    try:
        found, _ = rankings(settings, report, now_us=report.at_us)
        write_page(page, report, found)
        report = replace(report, page=str(page))
        if report.run_id:
            report = replace(report, mlflow=log_page(settings, report.run_id, page, LOGGED))
    except (StreamRecError, OSError) as error:
        return replace(report, problems=(*report.problems, f"the report page: {getattr(error, 'message', error)}"))
    return report


def trained_of(
    served: Served, settings: Settings, reference: Callable[[Served], Reference] | None = None
) -> tuple[Reference | None, str]:
    """What a ranker learned from, or why that cannot be had. reference: default: the registry's."""
    try:
        return (reference(served) if reference else _registered(served, settings)), ""
    except (StreamRecError, OSError) as error:
        return None, f"no reference: {getattr(error, 'message', error)}"


def _past(
    settings: Settings, gathered: Gathered, season: SeasonName | None, now_us: int, seed: int
) -> tuple[pa.Table | None, str]:
    """One row a user of the same times before, or why there are none."""
    if season is None or gathered.since_us is None or gathered.until_us is None:
        return None, ""
    try:
        windows = list(past_windows(gathered.since_us, gathered.until_us, SEASONS[season]))
    except ValueError as error:
        return None, f"the season is not known: {error}"
    tables = []
    for since_us, until_us in windows:
        then = gather(settings.home, since_us, until_us, now_us=now_us, seed=seed, apart=False)
        tables += [part.sample.table() for part in then.parts.values() if part.logged]
    if not tables:
        return None, unlogged(SEASONS[season], settings.keep_contexts_d)
    return one_per_user(pa.concat_tables(tables, promote_options="default"), COLUMNS, seed=seed), ""


def _registered(served: Served, settings: Settings) -> Reference:
    """By the ranker's tag, else by the Bento."""
    if _STORED.match(served.ranker):
        return load_reference(settings.home, named(served), settings=settings)
    bento = served.bentos.most_common(1)[0][0]
    return load_reference(settings.home, bento or None, settings=settings)


def named(served: Served) -> str:
    """How a ranker is called whose version is not known."""
    return f"{model_name('ranking')}:{served.ranker}" if served.ranker else "no ranker"


def called(served: Served, bentos: Counter[str], settings: Settings) -> str:
    """As the watch calls whoever serves, or it takes what is said for somebody else's: the version of the Bento's
    ranker; the Bento itself, where it was built elsewhere."""
    if not served.ranker:
        return named(served)
    bento = bentos.most_common(1)[0][0]
    try:
        return pinned_uris(stored_bento(bento, settings.home))["ranking"].removeprefix("models:/") or bento
    except StreamRecError:
        return bento
