"""`streamrec train` and `streamrec evaluate`."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.moments import moment_us
from cli.output import Json, emit, err, errors_end_well, out, table
from contracts.errors import UsageError
from contracts.serving import RankerChoice
from contracts.settings import load_settings

if TYPE_CHECKING:
    from training.assess import Evaluation
    from training.evaluation.alone import Alone
    from training.evaluation.ladder import Ladder
    from training.evaluation.report import Scores
    from training.pipeline import TrainResult
    from training.progress import Progress

METRICS = ("ndcg@10", "recall@10", "hit@10", "mrr@10", "map@10", "recall@500", "coverage")
SLICE_METRICS = ("ndcg@10", "recall@10", "recall@500")
PAIRED, BESIDE = ("ndcg@10", "recall@500"), "ease"  # as in training/evaluation: its imports would slow every command

DATA_HELP = "A data set: a folder with interactions.parquet and items.parquet."
Data = Annotated[Path, typer.Option("--data", help=DATA_HELP)]


def register(app: typer.Typer) -> None:
    """Add this file's commands to the root."""
    app.command(rich_help_panel="Main job")(train)
    app.command(rich_help_panel="Main job")(evaluate)


@errors_end_well
def train(
    data: Annotated[Path | None, typer.Option("--data", help=DATA_HELP)] = None,
    until: Annotated[
        str | None,
        typer.Option(
            "--until",
            help="Train on rows before this moment (ISO 8601; UTC unless it has a zone) and test on the rows from then "
            "on. Without it the last 10 % of the rows are held out for the figures, and the models that are registered "
            "are then fitted again on all rows.",
        ),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option("--seed", min=0, help="The same seed and data give the same figures.", show_default="0"),
    ] = None,
    from_run: Annotated[
        str | None,
        typer.Option(
            "--from-run",
            metavar="RUN",
            help="In place of --data, --seed, --until, --moments and --ranker: repeat this run from its snapshot and "
            "its recipe, and compare every figure (exit 1 where one differs).",
        ),
    ] = None,
    moments: Annotated[
        int | None,
        typer.Option(
            "--moments",
            min=1,
            max=12,
            help="At how many moments before the cut the rankers learn: fewer are quicker, and worse.",
            show_default="8",
        ),
    ] = None,
    ranker: Annotated[
        RankerChoice | None,
        typer.Option(
            help="Which ranker serves; best: the simplest that is within 1 % of the best at the newest third of the "
            "moments, of those that learned at the others. One by name is quicker.",
            show_default="best",
        ),
    ] = None,
    bundles: Annotated[
        Path | None, typer.Option("--bundles", help="Also copy the three model bundles to this folder.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Train the retrieval models and the rankers, evaluate them against baselines, and register them in MLflow.

    The exact rows are kept as a snapshot under STREAMREC_HOME: the same command works after the folder is gone.
    Several processes share the fits where torchrun starts them: `torchrun --nproc-per-node 2 -m cli train --data DIR`.

    Example: `streamrec train --data data/synth --seed 7`
    """
    if from_run is not None:
        told = (
            ("--data", data),
            ("--until", until),
            ("--seed", seed),
            ("--moments", moments),
            ("--ranker", ranker),
        )
        given = [name for name, value in told if value is not None]
        if given:
            raise UsageError(f"--from-run repeats what the run was told: leave out {', '.join(given)}")
        _again(from_run, bundles, as_json)
        return
    if data is None:
        raise UsageError("give --data DIR, or --from-run RUN", next_command="streamrec data synth OUT")
    settings = load_settings()
    until_us = moment_us(until, "--until")
    _tame_libraries()
    from training import parallel
    from training.pipeline import TrainConfig
    from training.pipeline import train as run
    from training.ranking import RankingConfig

    if parallel.follows():
        raise typer.Exit(parallel.follow())
    asked = {name: value for name, value in (("moments", moments), ("ranker", ranker)) if value is not None}
    config = TrainConfig(ranking=RankingConfig.model_validate(asked))
    with parallel.lead(), progress_display() as progress:
        result = run(
            data,
            until_us=until_us,
            seed=seed or 0,
            settings=settings,
            config=config,
            keep=bundles,
            progress=progress,
        )
    document, human = _told(result)
    emit(document, as_json=as_json, human=human)


def _again(run_id: str, bundles: Path | None, as_json: bool) -> None:
    settings = load_settings()
    _tame_libraries()
    from training import parallel
    from training.repeat import repeat

    if parallel.follows():
        raise typer.Exit(parallel.follow())
    with parallel.lead(), progress_display() as progress:
        repeated = repeat(run_id, settings, keep=bundles, progress=progress)
    for warning in repeated.warnings:
        err.print(f"[yellow]note:[/yellow] {warning}", soft_wrap=True)
    comparison = repeated.comparison
    document, human = _told(repeated.result)

    def both() -> None:
        human()
        if comparison.differences:
            rows = (
                (name, d["then"], d["now"], d["difference"]) for name, d in comparison.plain()["differences"].items()
            )
            table(f"figures that differ from run {run_id}", ("", "then", "now", "difference"), rows)
        out.print(f"against run {run_id}: [bold]{comparison.verdict}[/bold], {comparison.compared} figures compared")

    emit(document | {"repeats": comparison.plain()}, as_json=as_json, human=both)
    if comparison.verdict != "same":
        raise typer.Exit(1)


def _told(result: "TrainResult") -> tuple[dict[str, Any], Callable[[], None]]:
    """What a training says, for scripts and for people; its notes are said at once."""
    for warning in result.warnings:
        err.print(f"[yellow]note:[/yellow] {warning}", soft_wrap=True)
    judged = result.evaluation
    document = {
        "run_id": result.run_id,
        "models": dict(result.models),
        "metrics": dict(result.metrics),
        "baselines": {name: dict(values) for name, values in result.baselines.items()},
        "ladder": judged.ladder.plain() if judged else None,
        "sources": {one.scores.name: one.plain() for one in judged.alone} if judged else {},
        "ranker": result.ranker,
        "seconds": round(result.seconds, 1),
        "report": str(result.report_path or result.report),
        "ablations": judged.ablations.plain() if judged and judged.ablations else None,
        "snapshot": result.snapshot,
        "trained_until": iso(result.trained_until_us),
        "warnings": list(result.warnings),
    }

    def human() -> None:
        if judged is not None:
            show(judged)
        out.print(f"[bold]ranker[/bold]  {result.ranker}", soft_wrap=True)
        for kind, uri in result.models.items():
            out.print(f"[bold]{kind}[/bold]  {uri}")
        out.print(f"[bold]report[/bold]  {result.report_path or result.report}", soft_wrap=True)
        out.print(f"run {result.run_id}, {result.seconds:.0f} s; next: streamrec build")

    return document, human


@errors_end_well
def evaluate(
    data: Data,
    start: Annotated[str, typer.Option("--from", help="First moment of the test window (ISO 8601).")],
    to: Annotated[str | None, typer.Option("--to", help="First moment after it; default: the end of the data.")] = None,
    bento: Annotated[str | None, typer.Option("--bento", help="A Bento's tag; default: the latest built.")] = None,
    as_json: Json = False,
) -> None:
    """Measure the funnel that serves on a window of a data set, beside baselines from popularity to boosted trees.

    Users and items are as they were at --from; the baselines are fitted on the rows before it.

    Example: `streamrec evaluate --data data/or2 --from 2011-07-06T11:22 --bento streamrec:latest`
    """
    settings = load_settings()
    from_us = moment_us(start, "--from")
    to_us = moment_us(to, "--to")
    if to_us is not None and to_us <= from_us:
        raise UsageError(f"--to {to} is not after --from {start}")
    _tame_libraries()
    from training.pipeline import evaluate as run

    with progress_display() as progress:
        result = run(data, from_us=from_us, to_us=to_us, tag=bento, settings=settings, progress=progress)
    for warning in result.warnings:
        err.print(f"[yellow]note:[/yellow] {warning}", soft_wrap=True)
    judged = result.evaluation
    document = {
        "bento": result.bento,
        "from": iso(judged.from_us),
        "to": iso(judged.to_us),
        "metrics": judged.metrics(),
        "baselines": {scores.name: scores.plain() for scores in judged.baselines},
        "ladder": judged.ladder.plain(),
        "sources": {one.scores.name: one.plain() for one in judged.alone},
        "slices": judged.funnel.plain_slices(),
        "warnings": list(result.warnings),
    }
    emit(document, as_json=as_json, human=lambda: show(judged))


def iso(moment: int) -> str:
    return datetime.fromtimestamp(moment / 1e6, UTC).isoformat()


def show(judged: "Evaluation") -> None:
    """The table: every recommender with standard errors; then slices of the funnel, and the ranker."""
    title = f"{iso(judged.from_us)} to {iso(judged.to_us)}: {judged.n_users:,} users, {judged.n_targets:,} targets"
    table(title, ("", *METRICS), (_row(scores) for scores in judged.tables()))
    if judged.alone:
        table(
            "each source alone",
            ("", *SLICE_METRICS, *(f"{m} over {BESIDE}" for m in PAIRED)),
            map(_alone, judged.alone),
        )
    ranker = judged.ranker
    out.print(
        f"ranker on {ranker.n_rows:,} candidates: AUC {ranker.auc.value:.4f} ± {ranker.auc.se:.4f}, "
        f"log loss {ranker.log_loss.value:.4f} ± {ranker.log_loss.se:.4f}, ECE {ranker.ece:.4f}"
    )
    show_ladder(judged.ladder)
    if judged.funnel.slices:
        rows = (
            (name, estimates["ndcg@10"].n, *(_cell(estimates[metric]) for metric in SLICE_METRICS))
            for name, estimates in judged.funnel.slices.items()
        )
        table("the funnel by slice", ("", "users", *SLICE_METRICS), rows)


def _alone(one: "Alone") -> Sequence[Any]:
    gains = (_cell(one.gain[metric]) if one.gain else "–" for metric in PAIRED)
    return (one.scores.name, *(_cell(one.scores.overall[metric]) for metric in SLICE_METRICS), *gains)


def show_ladder(steps: "Ladder") -> None:
    """The rungs, from the simplest: what each brings over the simplest stable one, what it costs, is it worth it."""
    columns = ("", "", "ndcg@10", f"over {steps.base}", "train s", "serve µs", "verdict", "why")
    rows = (
        (
            rung.name,
            rung.family,
            _cell(rung.value),
            "" if rung.name == steps.base else _cell(rung.uplift),
            "–" if rung.cost.train_s is None else f"{rung.cost.train_s:,.1f}",
            "–" if rung.cost.serve_us is None else f"{rung.cost.serve_us:,.0f}",
            rung.verdict or "",
            rung.why,
        )
        for rung in steps.rungs
    )
    table("baseline ladder", columns, rows)
    if steps.choice:
        out.print(f"the simplest model within {steps.tolerance:.0%} of the best: [bold]{steps.choice}[/bold]")


def _row(scores: "Scores") -> Sequence[Any]:
    if scores.not_run is not None:
        return (scores.name, f"not run: {scores.not_run}")
    return (scores.name, *(_cell(scores.overall[metric]) for metric in METRICS))


def _cell(estimate: Any) -> str:
    if estimate.value != estimate.value:
        return "–"
    error = f"±{estimate.se:.4f}" if estimate.se == estimate.se else ""
    return f"{estimate.value:.4f} {error}"


@contextmanager
def progress_display() -> "Iterator[Progress]":
    """One line a stage on standard error; lines of text where that is no terminal."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    stages: dict[str, TaskID] = {}
    said: set[str] = set()
    with Progress(*columns, console=err, disable=not err.is_terminal) as display:

        def progress(stage: str, done: int, total: int) -> None:
            if not err.is_terminal:
                if stage not in said:
                    said.add(stage)
                    err.print(stage)
                return
            task = stages.get(stage)
            if task is None or (display.tasks[task].finished and done < total):
                stages[stage] = task = display.add_task(stage, total=total)
            display.update(task, completed=done, total=total)

        yield progress


def _tame_libraries() -> None:
    """Before torch is imported: threads that sleep while they wait, and no words that nobody asked for."""
    import logging
    import warnings

    # OpenMP threads spin by default: on a machine that does other work as well, a training took nine times as long.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    logging.getLogger("mlflow").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"copyreg|torch\..*")
    warnings.filterwarnings("ignore", message=r"Sparse (CSR tensor support|invariant checks)|Arrow output on a DB-API")
