"""`streamrec data`: make, import, check and describe data sets."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from cli import export
from cli.output import Json, emit, err, errors_end_well, out, table
from contracts.settings import load_settings

if TYPE_CHECKING:
    from training.data.report import Report

app = typer.Typer(no_args_is_help=True)
imports = typer.Typer(no_args_is_help=True)
app.add_typer(imports, name="import", help="Turn a published log into a data set.")
export.register(app)

Out = Annotated[Path, typer.Argument(metavar="OUT", help="Folder to write; replaced only if such a command made it.")]
Source = Annotated[Path, typer.Argument(metavar="SRC", help="A file or a folder.")]
Folder = Annotated[Path, typer.Argument(metavar="DIR", help="A data-set folder.")]


@app.command()
@errors_end_well
def synth(
    target: Out,
    users: Annotated[int, typer.Option(help="People in the world.")] = 2_000,
    items: Annotated[int, typer.Option(help="Items in the catalogue, launched over time.")] = 1_500,
    days: Annotated[int, typer.Option(help="Length of the log.")] = 30,
    seed: Annotated[int, typer.Option(help="The same seed and sizes give the same log.")] = 0,
    events: Annotated[int | None, typer.Option(help="About so many events in all [default: 125 a user].")] = None,
    as_json: Json = False,
) -> None:
    """Write a synthetic data set with known preferences, impressions with position bias, and its truth beside it.

    Example: `streamrec data synth data/world --users 5000 --items 3000 --seed 7`
    """
    from training.data import synth as world

    load_settings()  # nothing is taken from it, but a wrong key is an error here too
    with _bar() as bar:
        task = bar.add_task("events", total=None)
        written = world.write(
            target,
            users=users,
            items=items,
            days=days,
            seed=seed,
            events=events,
            progress=lambda done, expected: bar.update(task, completed=done, total=max(done, expected)),
        )
    document = {"folder": str(target), "events": written, "users": users, "items": items, "days": days, "seed": seed}
    emit(document, as_json=as_json)


@imports.command("online-retail")
@errors_end_well
def online_retail(source: Source, target: Out, as_json: Json = False) -> None:
    """Import Online Retail II: a Parquet or CSV file of invoice lines, or the folder that holds it.

    Example: `streamrec data import online-retail ~/data/online-retail-2 data/retail`
    """
    from training.data.online_retail import import_online_retail

    load_settings()  # nothing is taken from it, but a wrong key is an error here too
    with err.status("importing") as status:
        report = import_online_retail(source, target, progress=lambda step: status.update(f"importing: {step}"))
    _show_import(report, target, as_json)


@imports.command()
@errors_end_well
def movielens(source: Source, target: Out, as_json: Json = False) -> None:
    """Import MovieLens 100k, 1M or latest: the folder, or the zip file as it was published. Which one is found out.

    Example: `streamrec data import movielens ml-latest-small.zip data/movies`
    """
    from training.data.movielens import import_movielens

    load_settings()  # nothing is taken from it, but a wrong key is an error here too
    with err.status("importing") as status:
        report = import_movielens(source, target, progress=lambda step: status.update(f"importing: {step}"))
    _show_import(report, target, as_json)


@app.command()
@errors_end_well
def validate(folder: Folder, as_json: Json = False) -> None:
    """Check a data set against its contract. Rejected rows go to `rejects.parquet` in it, each with a reason.

    Example: `streamrec data validate data/retail`
    """
    from training.data.contract import validate_and_keep_rejects

    load_settings()  # nothing is taken from it, but a wrong key is an error here too
    with err.status("checking"):
        report = validate_and_keep_rejects(folder)
    document = report.as_json()
    if as_json or report.ok:
        emit(document, as_json=as_json, human=lambda: _show_report(report))
    report.raise_if_too_many()


@app.command()
@errors_end_well
def describe(folder: Folder, as_json: Json = False) -> None:
    """Tell what is in a data set: counts, time range, density, events per user.

    Example: `streamrec data describe data/retail --json`
    """
    from training.data.describe import describe as look

    load_settings()  # nothing is taken from it, but a wrong key is an error here too
    with err.status("reading"):
        document = look(folder)
    emit(document, as_json=as_json, human=lambda: _show_description(document))


def _bar() -> Progress:
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    return Progress(*columns, console=err, transient=True)


def _show_import(report: "Report", target: Path, as_json: bool) -> None:
    document = report.as_json() | {"folder": str(target)}
    emit(document, as_json=as_json, human=lambda: _show_report(report))


def _show_report(report: "Report") -> None:
    document = report.as_json()
    table(
        f"{report.folder}: accepted",
        ("table", "rows read", "kept", "rejected"),
        (
            (name, f"{rows:,}", f"{document['accepted'][name]:,}", f"{report.share(name):.2%}")
            for name, rows in report.rows.items()
        ),
    )
    if report.rejected:
        table(
            "left out",
            ("table", "column", "reason", "rows", "first rows"),
            ((r.table, r.column, r.reason, f"{r.count:,}", ", ".join(map(str, r.first_rows))) for r in report.rejected),
        )


def _show_description(document: dict[str, Any]) -> None:
    for key, value in document.items():
        if isinstance(value, dict):
            shown = ", ".join(f"{k} {v:,}" if isinstance(v, int) else f"{k} {v}" for k, v in value.items())
        else:
            shown = f"{value:,}" if isinstance(value, int) else str(value)
        out.print(f"[bold]{key}[/bold]  {escape(shown)}", soft_wrap=True)
