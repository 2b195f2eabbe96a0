"""`streamrec monitor`: what the service does, against what its models learned from."""

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli import monitor_logs, monitor_watch
from cli.monitor_logs import Home, Last, Since, Until, drift_of_logs
from cli.output import Json, emit, err, errors_end_well, out, table
from contracts.errors import UsageError
from contracts.settings import load_settings

if TYPE_CHECKING:
    from monitoring.drift.base import Result
    from monitoring.drift.report import Report

app = typer.Typer(no_args_is_help=True)
monitor_watch.register(app)
monitor_logs.register(app)

Frame = Annotated[Path | None, typer.Option(metavar="PATH", help="A Parquet file, or a folder of them.")]


@app.command()
@errors_end_well
def drift(
    reference: Frame = None,
    current: Frame = None,
    since: Since = None,
    until: Until = None,
    last: Last = None,
    season: Annotated[
        str | None, typer.Option(help="Of the logs: hour, weekday or year, whose past excuses what it had too.")
    ] = None,
    page: Annotated[Path | None, typer.Option(metavar="DIR", help="Of the logs: where a drift gets a page.")] = None,
    engine: Annotated[
        str | None, typer.Option(help="alibi or scipy [default: alibi where alibi-detect is installed]")
    ] = None,
    alpha: Annotated[float, typer.Option(help="Chance of any alarm when nothing changed.")] = 0.05,
    features: Annotated[str | None, typer.Option(help="Only these columns, with commas between [default: all]")] = None,
    slices: Annotated[
        str | None, typer.Option(help="Columns whose errors are looked at slice by slice, with commas between.")
    ] = None,
    number_test: Annotated[str, typer.Option(help="ks, cvm or psi")] = "ks",
    vector_test: Annotated[str, typer.Option(help="mmd or lsdd")] = "mmd",
    unit: Annotated[
        str | None, typer.Option(help="Rows of one value of this column are not independent: judge one row of each.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of samples and permutations.")] = 0,
    target: Annotated[Path | None, typer.Option("--out", help="Keep the JSON document here too.")] = None,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Compare a window with its reference: each column, embeddings, what was shown, and what came of it.

    Without --reference and --current: the service's own log, each ranker against what its training saw.

    Example: `streamrec monitor drift --reference reference/rows.parquet --current window.parquet`, or
    `streamrec monitor drift --since 2026-11-24 --season weekday`
    """
    if reference is None and current is None:
        drift_of_logs(
            home, since, until, last, season=season, pages=page, engine=engine, alpha=alpha, seed=seed,
            target=target, as_json=as_json,
        )  # fmt: skip
        return
    if reference is None or current is None:
        raise UsageError("--reference and --current go together", next_command="streamrec monitor drift --help")
    from monitoring.drift.compare import compare
    from monitoring.drift.engines.choose import choose
    from monitoring.drift.frame import read_frame
    from monitoring.drift.question import Question

    load_settings()  # nothing is taken from it, but a wrong key is an error here too
    ask = Question(alpha, seed, _words(features), _words(slices), number_test, vector_test, unit)
    chosen = choose(engine)
    with err.status(f"comparing by {chosen.name}"):
        report = compare(
            read_frame(reference), read_frame(current), engine=chosen, now_us=time.time_ns() // 1_000, ask=ask
        )
    document = report.document()
    if target:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(json.dumps(document, allow_nan=False, indent=1) + "\n")
    emit(document, as_json=as_json, human=lambda: _show_drift(report))


def _words(text: str | None) -> list[str] | None:
    return None if text is None else [word.strip() for word in text.split(",") if word.strip()]


def _show_drift(report: "Report") -> None:
    rows = report.rows
    out.print(f"[bold]{report.verdict}[/bold]  {rows[1]:,} rows against {rows[0]:,}, by {report.engine}")
    if report.why:
        out.print(report.why, markup=False)
    said = [(name, feature.said) for name, feature in report.features.items()]
    for title, results in (
        ("features", said),
        ("what was shown", list(report.outputs.items())),
        ("what came of it", list(report.concept.items())),
    ):
        if results:
            columns = ["", "test", "statistic", "p", "p adjusted", "effect", "counts from", "verdict", "why"]
            table(title, columns, [_row(name, result) for name, result in results])
    for note in report.notes:
        out.print(note, markup=False)


def _row(name: str, result: "Result") -> list[str | None]:
    def number(value: float | None) -> str | None:
        return None if value is None else f"{value:.4g}"

    figures = (result.statistic, result.p, result.p_adjusted, result.effect, result.threshold)
    return [name, result.test, *map(number, figures), result.drift, result.why or _moved(result)]


def _moved(result: "Result") -> str:
    """In a few words, what moved where something did."""
    details = result.details
    if result.drift != "drift":
        return ""
    if "moved" in details:
        what = f"{details['cell']} " if "cell" in details else ""
        moves = [f"{m['category']} {m['reference']:.3g} → {m['current']:.3g}" for m in details["moved"][:3]]
        return what + ", ".join(moves)
    if "degrees" in details:
        return f"{details['degrees']['mean']:.2f}° on average over {details['pairs']} items"
    before, now = details.get("reference"), details.get("current")
    if isinstance(before, dict) and isinstance(now, dict):
        return f"mean {before.get('mean', 0):.4g} → {now.get('mean', 0):.4g}"
    return f"{before:.4g} → {now:.4g}" if isinstance(before, float) and isinstance(now, float) else ""
