"""`streamrec monitor skew`."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.moments import moment_us
from cli.output import Json, emit, err, errors_end_well, out, table
from contracts.errors import Refused, UsageError
from contracts.settings import load_settings

if TYPE_CHECKING:
    from monitoring.skew.report import SkewReport
    from monitoring.skew.statistics import FeatureSkew

ROWS = 200


def register(app: typer.Typer) -> None:
    app.command("skew")(skew)


@errors_end_well
def skew(
    since: Annotated[str | None, typer.Option(metavar="T", help="Answers from then on [default: all].")] = None,
    until: Annotated[str | None, typer.Option(metavar="T", help="Answers before then [default: all].")] = None,
    rows: Annotated[
        int, typer.Option(min=0, help="Answers whose features are compared with the offline join, one by one.")
    ] = ROWS,
    model: Annotated[
        str | None, typer.Option(metavar="MODEL", help="A version of the ranker [default: the one that answered most].")
    ] = None,
    data: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Data set of the offline join [default: what it was trained on].")
    ] = None,
    check: Annotated[bool, typer.Option("--check", help="Exit with 3 where there is skew.")] = False,
    seed: Annotated[int, typer.Option(help="Which answers are drawn.")] = 0,
    home: Annotated[Path | None, typer.Option(help="STREAMREC_HOME for this run.")] = None,
    as_json: Json = False,
) -> None:
    """Compare what was served with what the ranker was trained on: statistics, and logged values with the offline join.

    Exit code 3 with --check: a breach. `inconclusive` says what is not known, and is none.

    Example: `streamrec monitor skew --since 2026-11-01 --rows 500`
    """
    settings = load_settings({"home": home})
    since_us, until_us = moment_us(since, "--since"), moment_us(until, "--until")
    if since_us is not None and until_us is not None and since_us >= until_us:
        raise UsageError("--since is not before --until: no answer can lie between them")
    from monitoring.skew.run import skew as judge

    with err.status("reading the logs of what was served"):
        report = judge(
            settings,
            since_us=since_us,
            until_us=until_us,
            now_us=time.time_ns() // 1_000,
            rows=rows,
            model=model,
            data=data,
            seed=seed,
        )
    emit(report.document(), as_json=as_json, human=lambda: _show(report))
    if check and report.verdict == "breach":
        raise Refused(f"skew: {report.why}", next_command="docs/monitoring.md, “Skew”")


def _show(report: "SkewReport") -> None:
    of = f" of {report.model}" if report.model else ""
    out.print(
        f"[bold]{report.verdict}[/bold]{of}: {report.n:,} rows of {report.users:,} users, {report.answers:,} answers"
    )
    if report.why:
        out.print(report.why, markup=False)
    if report.features:
        order = {"breach": 0, "inconclusive": 1, "ok": 2}
        known = sorted(
            (f for f in report.features if f.reads), key=lambda f: (order[f.verdict], -(f.importance or 0.0))
        )
        fine = sum(f.verdict == "ok" for f in known)
        table(
            f"statistics: {fine} of {len(known)} features hold",
            ("feature", "verdict", "shift", "ratio", "missing", "unmet", "AUC without", "why"),
            [_statistics_row(f) for f in known if f.verdict != "ok"] + [_statistics_row(f) for f in known[-fine:][:5]],
        )
        if fine > 5:
            out.print(f"and {fine - 5} more that hold: --json has all", markup=False)
        unread = [f.feature for f in report.features if not f.reads]
        if unread:
            out.print(
                f"not read by the ranker, as they were constant when it learned: {', '.join(unread)}", markup=False
            )
    if report.rows is not None:
        table(
            f"logged values of {report.rows.requests} answers against the offline join: {report.rows.verdict}",
            ("feature", "verdict", "compared", "different", "aged", "kind", "why"),
            [
                (one.feature, one.verdict, one.compared, one.different, one.aged, one.kind, one.why)
                for one in report.rows.features
            ],
        )
        for one in report.rows.features:
            for row in one.examples[:1]:
                what = f"{one.feature} of {row['entity']} in {row['request_id']}"
                out.print(f"  {what}: logged {row['logged']}, by the join {row['offline']}", markup=False)
    for problem in report.problems:
        out.print(problem, markup=False)


def _statistics_row(skew: "FeatureSkew") -> list[str | None]:
    by_name = {m.name: m for m in skew.measures}

    def figure(name: str) -> str | None:
        found = by_name.get(name)
        return None if found is None else f"{found.value:+.3f}" if name != "ratio" else f"{found.value:.3f}"

    weight = None if skew.importance is None else f"-{skew.importance:.4f}" if skew.importance else "0"
    return [skew.feature, skew.verdict, *map(figure, ("shift", "ratio", "missing", "unmet")), weight, skew.why]
