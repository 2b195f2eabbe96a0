"""One HTML page for a window, that opens without a network: our verdicts and ranking metrics, then Evidently's report.

Evidently draws each column against the reference; what is drift, how much it weighs and how well slates rank is said by
ours, above it. Both sides are sampled, so that the page stays below about 8 MB whatever the window.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from markupsafe import Markup

from contracts import tracking
from contracts.errors import UsageError
from contracts.settings import Settings
from monitoring.drift.service.binned import is_words
from monitoring.drift.service.columns import CATEGORY, SCORE
from monitoring.drift.service.judgement import Found, Judgement
from monitoring.drift.service.report import DriftReport
from monitoring.reports.ranking import Ranking
from registry import page as html
from registry.mlflow_client import connect, translated

if TYPE_CHECKING:
    import pandas as pd

ROWS = 3_000  # a side
COLUMNS = 30
PSI = 0.2  # from where on Evidently's table calls a column drifted
FOLDER = "monitoring"  # of the model's run in MLflow


def write_page(
    target: Path,
    report: DriftReport,
    ranking: Mapping[str, Ranking] | None = None,
    *,
    seed: int = 0,
) -> Path:
    """
    Args:
        ranking: name of a window (`baseline`, `window`) → its metrics.

    Raises:
        UsageError: Evidently is not installed.
    """
    ours = list(_ours(report, ranking or {}))
    theirs = _evidently(report.judged, report.samples, seed) if report.judged and report.samples else ""
    body = theirs.find("<body")
    end = theirs.find(">", body) + 1 if body >= 0 else 0
    page = theirs[:end] + html.embedded(*ours) + theirs[end:] if end else html.page(report.model, *ours)
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.name}.part")
    part.write_text(page)
    part.rename(target)
    return target


def log_page(settings: Settings, run_id: str, page: Path, name: str = "") -> str:
    """Put the page under the training run of the model; where it lies there.

    name: there, in place of the one before; the page's own when not given.

    Raises:
        NotFound, Unreachable: there is no such run, or MLflow is away.
    """
    name = name or page.name
    with translated(f"logging {name} under run {run_id}"):
        connect(settings).log_text(run_id, page.read_text(), f"{FOLDER}/{name}")
    return f"runs:/{run_id}/{FOLDER}/{name}"


def page_name(report: DriftReport) -> str:
    """`drift-streamrec-ranking-7-20261125T060000Z.html`: of the same window the same."""
    until = datetime.fromtimestamp(report.until_us / 1e6, UTC).strftime("%Y%m%dT%H%M%SZ")
    model = "".join(c if c.isalnum() else "-" for c in report.model) or "no-model"
    return f"drift-{model}-{until}.html"


def _ours(report: DriftReport, ranking: Mapping[str, Ranking]) -> Iterator[Markup]:
    window = " to ".join(
        datetime.fromtimestamp(at / 1e6, UTC).isoformat(sep=" ", timespec="minutes")
        for at in (report.since_us, report.until_us)
    )
    yield html.heading(f"{report.model}: {report.verdict}", 1)
    shown = f"{window}, {report.rows:,} shown items"
    judged = report.judged
    if judged is None:
        yield html.paragraph(f"{shown}. {report.why}")
    else:
        n, m = judged.rows
        yield html.paragraph(
            f"{shown}; judged on one row of each user: {m:,} against {n:,} of training. Below, Evidently draws at most "
            f"{ROWS:,} of each and {COLUMNS} columns."
        )
        yield html.paragraph(f"Severity: {judged.severity.text}")
        found = [*judged.of("drift"), *judged.of("seasonal"), *judged.of("inconclusive")]
        yield html.table(
            ("check", "verdict", "effect", "p adjusted", "importance", ""),
            [
                (f.check, html.verdict(f.verdict), f.flat.effect, f.flat.p_adjusted, f.importance, _said(f))
                for f in found
            ],
        )
    for problem in report.problems:
        yield html.paragraph(problem)
    if ranking:
        names = tuple(next(iter(ranking.values())).document())
        yield html.heading("Ranking")
        yield html.table(("", *names), [(name, *(r.document()[key] for key in names)) for name, r in ranking.items()])


def _said(found: Found) -> str:
    return found.why if found.verdict == "inconclusive" else found.text


def _evidently(judged: Judgement, sides: tuple[pa.Table, pa.Table], seed: int) -> str:
    tracking.off()
    try:
        from evidently import DataDefinition, Dataset, Report
        from evidently.presets import DataDriftPreset
    except ImportError as error:
        raise UsageError(
            "Evidently is not installed", next_command="pip install -c constraints.txt '.[monitor]'"
        ) from error
    names = _columns(judged, sides)
    if not names or any(not side.num_rows for side in sides):
        return ""
    reference, current = (_frame(side, names, seed) for side in sides)
    words = [name for name in names if is_words(sides[0][name])]
    definition = DataDefinition(
        numerical_columns=[name for name in names if name not in words], categorical_columns=words
    )
    snapshot = Report([DataDriftPreset(method="psi", threshold=PSI)]).run(
        Dataset.from_pandas(current, definition), Dataset.from_pandas(reference, definition)
    )
    return str(snapshot.get_html_str(as_iframe=False))


def _columns(judged: Judgement, sides: tuple[pa.Table, pa.Table]) -> list[str]:
    """Score and category, then what drifted, then what weighs most: columns with values on both sides."""
    found = sorted(judged.found.values(), key=lambda f: (f.verdict != "drift", -(f.importance or 0.0), f.check))
    ordered = dict.fromkeys([SCORE, CATEGORY, *(f.column for f in found)])

    def drawn(name: str) -> bool:
        if any(name not in side.column_names for side in sides):
            return False
        return all(side[name].null_count < side.num_rows for side in sides) and (
            is_words(sides[0][name]) == is_words(sides[1][name])
        )

    return [name for name in ordered if drawn(name)][:COLUMNS]


def _frame(table: pa.Table, names: Sequence[str], seed: int) -> "pd.DataFrame":
    random = np.random.default_rng(seed)
    chosen = np.sort(random.permutation(table.num_rows)[:ROWS])
    return table.select(list(names)).take(pa.array(chosen)).to_pandas()
