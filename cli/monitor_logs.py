"""`streamrec monitor` over the service's own log: `drift` without frames, `report`, `slices`."""

import json
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.moments import moment_us
from cli.output import Json, emit, err, errors_end_well, out, table
from contracts.errors import UsageError
from contracts.settings import Settings, load_settings

if TYPE_CHECKING:
    from monitoring.drift.service.report import DriftReport
    from monitoring.drift.service.season import Verdict
    from monitoring.slices import SlicesReport

DAY_US = 86_400_000_000
COLUMNS = 12  # that are shown
SHOWN: tuple["Verdict", ...] = ("drift", "seasonal", "inconclusive")

Since = Annotated[str | None, typer.Option(metavar="T", help="Answers from then on [default: a day before --until].")]
Until = Annotated[str | None, typer.Option(metavar="T", help="Answers before then [default: now].")]
Last = Annotated[int | None, typer.Option(metavar="N", help="The last N answers, in place of --since.")]
Home = Annotated[Path | None, typer.Option(help="Where the service keeps its logs.")]


def register(app: typer.Typer) -> None:
    @app.command()
    @errors_end_well
    def report(
        html: Annotated[Path, typer.Option(metavar="OUT", help="The page to write.")],
        since: Since = None,
        until: Until = None,
        last: Last = None,
        season: Annotated[str | None, typer.Option(help="hour, weekday or year.")] = None,
        engine: Annotated[str | None, typer.Option(help="alibi or scipy.")] = None,
        seed: Annotated[int, typer.Option(help="Of samples and permutations.")] = 0,
        log: Annotated[
            bool, typer.Option("--log/--no-log", help="Keep it in MLflow too, under the model's run.")
        ] = True,
        home: Home = None,
        as_json: Json = False,
    ) -> None:
        """Write one HTML page for a window, that opens without a network: our verdicts and ranking metrics above
        Evidently's report. Of several rankers, the one that showed most.

        Example: `streamrec monitor report --html report.html --since 2026-11-24`
        """
        settings, window, now_us = _asked(home, since, until, last)
        from monitoring.drift.service.run import drift_run
        from monitoring.reports.page import log_page, write_page
        from monitoring.reports.window import rankings

        with err.status("reading the logs"):
            first = drift_run(settings, *window, now_us=now_us, season=_season(season), engine=engine, seed=seed)[0]
        with err.status("drawing"):
            found, why = rankings(settings, first, now_us=now_us)
            write_page(html, first, found, seed=seed)
        kept = log_page(settings, first.run_id, html) if log and first.run_id else None
        document = {
            "page": str(html),
            "bytes": html.stat().st_size,
            "mlflow": kept,
            "model": first.model,
            "verdict": first.verdict,
            "why": first.why,
            "ranking": {name: r.document() for name, r in found.items()},
            "ranking_why": why,
        }
        emit(document, as_json=as_json)

    @app.command()
    @errors_end_well
    def slices(
        since: Since = None,
        until: Until = None,
        last: Last = None,
        bento: Annotated[str | None, typer.Option(help="Whose meaning of a positive [default: the latest].")] = None,
        home: Home = None,
        as_json: Json = False,
    ) -> None:
        """What people did, slice by slice: clicks, calibration, their intervals over users, and the slice served worst.

        Example: `streamrec monitor slices --since 2026-11-24`
        """
        settings, window, now_us = _asked(home, since, until, last)
        from monitoring.drift.service.labelled import own_labels
        from monitoring.slices import slices as judge

        with err.status("reading the logs"):
            found = judge(own_labels(settings, bento, now_us=now_us)(*window, ""))
        emit(found.document(), as_json=as_json, human=lambda: _show_slices(found))


def drift_of_logs(
    home: Path | None,
    since: str | None,
    until: str | None,
    last: int | None,
    *,
    season: str | None,
    pages: Path | None,
    engine: str | None,
    alpha: float,
    seed: int,
    target: Path | None,
    as_json: bool,
) -> None:
    settings, window, now_us = _asked(home, since, until, last)
    from monitoring.drift.service.run import drift_run

    with err.status("reading the logs"):
        reports = drift_run(
            settings, *window, now_us=now_us, season=_season(season), engine=engine, pages=pages, alpha=alpha, seed=seed
        )
    document = {**reports[0].document(), "rankers": [r.document() for r in reports]}
    document["signals"] = [s.as_json() for r in reports for s in r.signals()]
    if target:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(json.dumps(document, allow_nan=False, indent=1) + "\n")
    emit(document, as_json=as_json, human=lambda: _show(reports))


def _asked(
    home: Path | None, since: str | None, until: str | None, last: int | None
) -> tuple[Settings, tuple[int, int], int]:
    """Settings, window and now. From here on the process is a quiet one: it reads beside those that answer."""
    settings = load_settings({"home": home})
    from monitoring.quiet import be_quiet

    be_quiet()
    now_us = time.time_ns() // 1_000
    until_us = moment_us(until, "--until") or now_us
    if last is not None:
        if since is not None:
            raise UsageError("--since and --last both say where the window begins")
        from monitoring.drift.service.window import last_answers

        return settings, (last_answers(settings.home, last), until_us), now_us
    since_us = moment_us(since, "--since")
    window = (until_us - DAY_US if since_us is None else since_us, until_us)
    if window[0] >= window[1]:
        raise UsageError("the window ends before it begins: --since is not before --until")
    return settings, window, now_us


def _season(name: str | None) -> Any:
    from monitoring.drift.service.season import SEASONS

    if name is not None and name not in SEASONS:
        raise UsageError(f"--season {name}: there are {', '.join(SEASONS)}")
    return name


def _show(reports: Sequence["DriftReport"]) -> None:
    for report in reports:
        out.print(f"[bold]{report.verdict}[/bold]  {report.model}  {report.rows:,} shown items, {_span(report)}")
        if report.why:
            out.print(report.why, markup=False)
        judged = report.judged
        if judged is not None:
            n, m = judged.rows
            out.print(f"{m:,} users against {n:,} of training; severity {judged.severity.text}", markup=False)
            if judged.no_season:
                out.print(judged.no_season, markup=False)
            found = [f for verdict in SHOWN for f in judged.of(verdict) if verdict != "inconclusive" or f.flat.weighs]
            columns = {f.column: f for f in reversed(found)}  # of a column, the check that says most
            first = list(reversed(columns.values()))[:COLUMNS]
            if first:
                table(
                    "what was found, by weight",
                    ["check", "verdict", "effect", "p adjusted", "since", ""],
                    [
                        (
                            f.check,
                            f.verdict,
                            _figure(f.flat.effect),
                            _figure(f.flat.p_adjusted),
                            _moment(f.since_us),
                            f.why if f.verdict == "inconclusive" else f.text,
                        )
                        for f in first
                    ],
                )
            if len(columns) > len(first):
                out.print(f"and {len(columns) - len(first)} more columns: --json has all")
            quiet = sum(f.verdict == "none" for f in judged.found.values())
            out.print(f"{quiet} of {len(judged.found)} checks found nothing")
        for problem in report.problems:
            out.print(problem, markup=False)
        if report.page:
            out.print(f"page: {report.page} {report.mlflow}".rstrip(), markup=False)


def _show_slices(found: "SlicesReport") -> None:
    worst = found.worst.name if found.worst else "none"
    out.print(f"[bold]{found.verdict}[/bold]  worst: {worst}; {found.whole.rows:,} shown items with a known label")
    if found.why:
        out.print(found.why, markup=False)
    rows = [
        (
            s.name,
            f"{s.users:,}",
            f"{s.rows:,}",
            _between(s.ctr, s.ctr_interval, ".2%"),
            _between(s.calibration, s.calibration_interval, ".2f"),
            "" if s.error is None else f"{s.error:+.0%}",
            s.verdict,
            s.why,
        )
        for s in (found.whole, *found.slices)
    ]
    columns = ["slice", "users", "shown", "positives", "by sum of scores", "against the rest", "verdict", ""]
    table("slices", columns, rows)


def _between(value: float | None, interval: tuple[float, float] | None, how: str) -> str:
    if value is None:
        return ""
    return f"{value:{how}}" + (f" ({interval[0]:{how}} to {interval[1]:{how}})" if interval else "")


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"


def _moment(at_us: int | None) -> str:
    return "" if at_us is None else datetime.fromtimestamp(at_us / 1e6, UTC).isoformat(" ", "minutes")[:16]


def _span(report: "DriftReport") -> str:
    return f"{_moment(report.since_us)} to {_moment(report.until_us)}"
