"""`streamrec batch`."""

import os
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from cli.moments import moment_us
from cli.output import Json, emit, err, errors_end_well, out
from contracts.errors import NotFound, UsageError
from contracts.settings import Settings, load_settings

app = typer.Typer(no_args_is_help=True)


@app.callback()
def group() -> None:
    """Precomputed slates for all users."""


@app.command("run")
@errors_end_well
def run_batch(
    data: Annotated[Path, typer.Option(metavar="DIR", help="Data set that the features come from.")],
    target: Annotated[Path, typer.Option("--out", metavar="FILE", help="Parquet file to write.")],
    bento: Annotated[str | None, typer.Option(metavar="TAG", help="Whose models [default: the latest built].")] = None,
    publish: Annotated[bool, typer.Option("--publish", help="Swap the slates into the online store.")] = False,
    as_of: Annotated[
        str | None, typer.Option(metavar="T", help="Features from events before T [default: now, or the log's end].")
    ] = None,
    k: Annotated[
        int | None, typer.Option(min=1, max=500, help="Items a user [default: 50; of candidates, all].")
    ] = None,
    stage: Annotated[
        Literal["slate", "candidates"], typer.Option(help="What is served, or the union that is ranked for it.")
    ] = "slate",
    users: Annotated[
        Path | None, typer.Option(metavar="FILE", help="User ids, one a line [default: all with an event before T].")
    ] = None,
    processes: Annotated[int | None, typer.Option(min=1, help="Processes [default: one a core].")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan and stop.")] = False,
    home: Annotated[Path | None, typer.Option(help="Where Bentos and the online store are.")] = None,
    as_json: Json = False,
) -> None:
    """Recommend for many users at once with the funnel that serves: `user_id, item_id, rank, score, sources`.

    Example: `streamrec batch run --data data/online-retail --k 50 --out slates.parquet --publish`
    """
    settings = load_settings({"home": home})
    if publish and stage != "slate":
        raise UsageError("--publish needs --stage slate: candidates are no slates")
    if publish and settings.online_store == "memory":
        raise UsageError("--publish needs an online store that outlives this command; it is set to `memory`")
    if not data.is_dir():
        raise NotFound(f"{data} is not there", next_command="streamrec data --help")
    import sys

    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from training import batch

    model, folders = _models(settings, bento)
    moment = moment_us(as_of, "--as-of")
    if moment is None:
        moment = batch.default_moment_us(data)
    chosen = batch.read_users(users) if users else batch.users_of(data, moment)
    job = batch.Job(
        data=data.absolute(),
        folders=folders,
        rules=_rules(settings),
        as_of_us=moment,
        k=k or (500 if stage == "candidates" else 50),
        stage=stage,
    )
    # A process takes seconds to load: not for a handful of users.
    count = processes or min(os.cpu_count() or 1, -(-len(chosen) // 500))
    plan: dict[str, Any] = {
        "data": str(data),
        "model": model,
        "as_of": batch.iso(moment),
        "stage": stage,
        "k": job.k,
        "users": len(chosen),
        "processes": count,
        "out": str(target),
        "publish": settings.online_store.split("://")[0] if publish else None,
    }
    if dry_run:
        emit(plan | {"dry_run": True}, as_json=as_json)
        return
    if publish:
        err.print(f"plan: slates of {len(chosen):,} users from {model} replace all lists in the online store")
    with Progress(
        TextColumn("recommending"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=err,
        disable=not sys.stderr.isatty(),
    ) as bar:
        task = bar.add_task("users", total=len(chosen))
        result = batch.run(job, chosen, target, processes=count, progress=lambda n: bar.advance(task, n))
    published = None
    if publish:
        from features.online.open import open_store

        store = open_store(settings)
        try:
            published = batch.publish(result, store, model)
        finally:
            store.close()
    document = plan | {
        "snapshot": result.snapshot,
        "rows": result.rows,
        "seconds": round(result.seconds, 3),
        "users_per_s": round(result.users / result.seconds, 1),
        "degradation": dict(result.degradations),
        "published": published,
    }

    def human() -> None:
        out.print(f"{target}: {result.rows:,} rows for {result.users:,} users in {result.seconds:.1f} s")
        if published is not None:
            out.print(f"published as {result.snapshot}: the `batch` rung of {published:,} users")

    emit(document, as_json=as_json, human=human)


def _models(settings: Settings, tag: str | None) -> tuple[str, dict[Any, Path]]:
    """The Bento's tag and the folders of its models; STREAMREC_BUNDLES stands in for a Bento that is not named."""
    from registry.artifacts import KINDS

    if settings.bundles and tag is None:
        return "unbuilt", {kind: settings.bundles.absolute() / kind for kind in KINDS}
    from registry.bento_store import bento_path, bundles_of

    full, _ = bento_path(tag, settings.home)
    return full, dict(bundles_of(full, settings.home))


def _rules(settings: Settings) -> Any:
    from bentos.recommender.rules import default_rules
    from contracts.rules import RulesDocument

    return RulesDocument.read(settings.rules) if settings.rules else default_rules()
