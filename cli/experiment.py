"""`streamrec experiment`: how many users it takes, who is in which arm, what came of it."""

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from cli.control import DryRun, Home, Token, now_us, open_control
from cli.output import Json, emit, errors_end_well, out, table
from contracts.errors import NotFound, UsageError

if TYPE_CHECKING:
    from registry.experiments import Experiment

app = typer.Typer(no_args_is_help=True)


@app.command()
@errors_end_well
def plan(
    effect: Annotated[float, typer.Option(help="The least that must be seen: treatment minus control.")],
    metric: Annotated[str, typer.Option(help="proportion or mean")] = "proportion",
    baseline: Annotated[float | None, typer.Option(help="The control's value.")] = None,
    sd: Annotated[float | None, typer.Option(help="Standard deviation of the units, for a mean.")] = None,
    relative: Annotated[bool, typer.Option("--relative", help="--effect is a share of the baseline.")] = False,
    power: Annotated[float, typer.Option(help="Chance to see the effect when it is there.")] = 0.8,
    alpha: Annotated[float, typer.Option(help="Chance to see one when there is none; two-sided.")] = 0.05,
    split: Annotated[float, typer.Option(help="The treatment's share.")] = 0.5,
    traffic: Annotated[float | None, typer.Option(help="Units a day that enter the experiment.")] = None,
    method: Annotated[str, typer.Option(help="fixed (one look) or sequential (any number)")] = "fixed",
    tuning_n: Annotated[int, typer.Option(help="sequential: units at which it is sharpest.")] = 5000,
    looks: Annotated[int, typer.Option(help="fixed: this many looks, equally spaced, with bounds to stop at.")] = 1,
    as_json: Json = False,
) -> None:
    """Sample size and duration from baseline, least effect, power and traffic.

    Example: `streamrec experiment plan --metric proportion --baseline .05 --effect .1 --relative --traffic 20000`
    """
    from monitoring.experiments.plan import Question
    from monitoring.experiments.plan import plan as answer

    kind: Literal["proportion", "mean"] = "mean" if metric == "mean" else "proportion"
    if metric != kind:
        raise UsageError(f"--metric: {metric!r} is neither proportion nor mean")
    how: Literal["fixed", "sequential"] = "sequential" if method == "sequential" else "fixed"
    if method != how:
        raise UsageError(f"--method: {method!r} is neither fixed nor sequential")
    document = answer(
        Question(kind, effect, baseline, sd, relative, power, alpha, split, traffic, how, tuning_n, looks)
    )

    def human() -> None:
        out.print(f"control    {document['n_control']:,} units")
        out.print(f"treatment  {document['n_treatment']:,} units")
        if document["days"] is not None:
            out.print(f"duration   {document['days']:,} days")
        if "fixed" in document:
            out.print(
                f"one look would need {document['fixed']['n_control']:,} and {document['fixed']['n_treatment']:,}"
            )
        if "bounds" in document:
            out.print("stop at |z|  " + ", ".join(f"{bound:.4f}" for bound in document["bounds"]))
        out.print(document["convention"], style="dim")

    emit(document, as_json=as_json, human=human)


@app.command()
@errors_end_well
def create(
    file: Annotated[Path, typer.Argument(help="TOML: [route], hypothesis, [[metrics]] with one primary.")],
    rules: Annotated[Path | None, typer.Option(help="Rules document of the treatment.")] = None,
    token: Token = None,
    dry_run: DryRun = False,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Start an experiment: its plan is frozen by hash, its users are assigned from the next routing table on.

    Example: `streamrec experiment create fresh-first.toml --dry-run`
    """
    from contracts.rules import RulesDocument
    from registry.experiments import Plan
    from registry.experiments import create as start

    frozen = Plan.read(file)
    document = RulesDocument.read(rules) if rules else None
    if document and frozen.route.treatment.rules is None:
        treatment = frozen.route.treatment.model_copy(update={"rules": document.digest})
        frozen = frozen.model_copy(update={"route": frozen.route.model_copy(update={"treatment": treatment})})
    _, store, token = open_control(home, token)
    experiment = start(store, token, frozen, rules=document, now_us=now_us(), dry_run=dry_run)
    _emit(experiment, dry_run, as_json)


@app.command("list")
@errors_end_well
def list_(home: Home = None, as_json: Json = False) -> None:
    """Every experiment, newest first.

    Example: `streamrec experiment list`
    """
    from registry.experiments import experiments

    store = open_control(home).store
    found = [_document(e) for e in experiments(store)]
    emit(
        {"experiments": found},
        as_json=as_json,
        human=lambda: table(
            "experiments",
            ["id", "state", "layer", "coverage", "split", "primary metric", "since", "decision"],
            [
                [e["id"], e["state"], e["layer"], e["coverage"], e["split"], e["primary"], e["created"], e["decision"]]
                for e in found
            ],
        ),
    )


@app.command()
@errors_end_well
def status(experiment: Annotated[str, typer.Argument(metavar="ID")], home: Home = None, as_json: Json = False) -> None:
    """One experiment: what was planned, whether it is live, what was decided.

    Example: `streamrec experiment status fresh-first`
    """
    from registry.experiments import find

    store = open_control(home).store
    found = find(store, experiment)
    emit(_document(found) | {"plan": found.plan.model_dump(mode="json"), "result": dict(found.result)}, as_json=as_json)


@app.command()
@errors_end_well
def analyze(
    experiment: Annotated[str | None, typer.Argument(metavar="ID", help="From the logs of this home.")] = None,
    file: Annotated[Path | None, typer.Option(help="JSON: metric, method, alpha, split, arms.")] = None,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Effect, interval, p, sample ratio and verdict, from two arms' counts or from an experiment's logs.

    Example: `streamrec experiment analyze --file arms.json`
    """
    if (experiment is None) == (file is None):
        raise UsageError("give an experiment's id or --file", next_command="streamrec experiment analyze --help")
    document = _of_file(file) if file else _of_logs(experiment or "", home)
    emit(document, as_json=as_json, human=lambda: _print_result(document))


@app.command()
@errors_end_well
def conclude(
    experiment: Annotated[str, typer.Argument(metavar="ID")],
    decision: Annotated[str, typer.Option(help="What was decided and why; kept in the audit.")],
    token: Token = None,
    dry_run: DryRun = False,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """End an experiment: everyone is back to what the champion does, and the result is kept with the decision.

    Example: `streamrec experiment conclude fresh-first --decision "ship: clicks up, no guardrail hurt"`
    """
    from registry.experiments import conclude as end
    from registry.experiments import find

    _, store, token = open_control(home, token)
    if not find(store, experiment).live:
        result: dict[str, Any] = {}  # `conclude` refuses, and keeps that in the audit
    else:
        result = _of_logs(experiment, home)
    ended = end(store, token, experiment, decision=decision, result=result, now_us=now_us(), dry_run=dry_run)
    _emit(ended, dry_run, as_json)


def _of_file(file: Path) -> dict[str, Any]:
    from monitoring.experiments.analyze import analyze as judge
    from monitoring.experiments.analyze import read

    try:
        text = file.read_bytes()
    except FileNotFoundError as error:
        raise NotFound(f"no file {file}", next_command="streamrec experiment analyze --help") from error
    return judge(read(text, str(file)))


def _of_logs(id_: str, home: Path | None) -> dict[str, Any]:
    from dataclasses import astuple

    from monitoring.evidence.source import experiment_evidence
    from monitoring.experiments.report import report
    from monitoring.statistics.samples import Ratio
    from registry.experiments import find

    settings, store, _ = open_control(home)
    found = find(store, id_)
    tally = experiment_evidence(
        settings, id_, found.plan.metrics, since_us=found.created_us, until_us=found.concluded_us
    )
    return report(
        found,
        lambda metric, arm: Ratio(*astuple(tally.sums(metric, arm))),
        lambda arm: tally.arm(arm).units,
    )


def _print_result(document: dict[str, Any]) -> None:
    rows = document.get("metrics", [document | {"name": "", "role": ""}])
    table(
        document.get("experiment", "experiment"),
        ["metric", "role", "control", "treatment", "effect", "interval", "p", "verdict", "because"],
        [
            [
                row["name"],
                row["role"],
                _arm(row["arms"]["control"]),
                _arm(row["arms"]["treatment"]),
                _figure(row["effect"]),
                None if row["ci"] is None else f"{_figure(row['ci'][0])} … {_figure(row['ci'][1])}",
                _figure(row["p"]),
                row["verdict"],
                row["reason"],
            ]
            for row in rows
        ],
    )
    out.print(f"sample ratio: p = {_figure(document['srm_p'])}")
    out.print(document["convention"], style="dim")


def _arm(arm: dict[str, Any]) -> str:
    return f"{_figure(arm['value'])} (n {arm['n']:,})"


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}"


def _emit(experiment: "Experiment", dry_run: bool, as_json: bool) -> None:
    document = _document(experiment) | ({"dry_run": True} if dry_run else {})

    def human() -> None:
        route = experiment.plan.route
        done = "would be" if dry_run else "is"
        out.print(
            f"experiment {experiment.id} {done} {document['state']}: {route.coverage:.0%} of the units of layer "
            f"{route.layer}, {route.split:.0%} of them treatment; plan {experiment.sha256[:12]}"
        )
        if experiment.live and not dry_run:
            out.print(f"next: streamrec experiment analyze {experiment.id}")

    emit(document, as_json=as_json, human=human)


def _document(experiment: "Experiment") -> dict[str, Any]:
    route = experiment.plan.route
    return {
        "id": experiment.id,
        "state": "live" if experiment.live else "concluded",
        "hypothesis": experiment.plan.hypothesis,
        "primary": next(m.name for m in experiment.plan.metrics if m.role == "primary"),
        "layer": route.layer,
        "coverage": route.coverage,
        "split": route.split,
        "created": _time(experiment.created_us),
        "concluded": None if experiment.concluded_us is None else _time(experiment.concluded_us),
        "decision": experiment.decision,
        "sha256": experiment.sha256,
        "actor": experiment.actor,
    }


def _time(us: int) -> str:
    return datetime.fromtimestamp(us / 1e6, UTC).isoformat(timespec="seconds")
