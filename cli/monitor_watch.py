"""`streamrec monitor schema`, `alerts`, `retrain-check`, `review`, `cost`: what the watch looks at and does."""

import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from cli.output import Json, emit, err, errors_end_well, out, table
from contracts.errors import NotFound
from contracts.settings import Settings, load_settings

if TYPE_CHECKING:
    from monitoring.retraining.decide import Ruling
    from monitoring.watch.watch import Live
    from registry.control.documents import Documents

Home = Annotated[Path | None, typer.Option(help="STREAMREC_HOME")]


review = typer.Typer(no_args_is_help=True)


def register(app: typer.Typer) -> None:
    app.command("schema")(schema)
    app.command("alerts")(alerts)
    app.command("retrain-check")(retrain_check)
    app.command("cost")(cost)
    app.add_typer(review, name="review", help="Uncertain and dear answers, for a person.")


@errors_end_well
def schema(
    file: Annotated[Path | None, typer.Argument(help="A schema to check [default: the one that holds here].")] = None,
    bento: Annotated[str, typer.Option(help="Of which Bento, by its name.")] = "",
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Show the monitoring schema that holds, or check a file: what is watched, how often, who is told.

    Example: `streamrec monitor schema .streamrec/monitoring/default.toml`
    """
    from monitoring.watch.schema import read_schema, schema_of

    settings = load_settings({"home": home})
    if file is not None and not file.is_file():
        raise NotFound(f"{file} is not there")
    found = read_schema(file) if file else schema_of(settings.home, bento)

    def human() -> None:
        rows = [
            (r.signal, r.check, f"{r.every_minutes:g}", r.threshold, r.criticality, r.owner, Path(r.runbook).name)
            for r in found.signals
        ]
        columns = ["signal", "check", "every (min)", "threshold", "criticality", "owner", "runbook"]
        table(f"{found.name}@{found.version}", columns, rows)
        asked = [
            (r.name, r.kind, ", ".join(r.signals), r.least, f"{r.for_hours:g}", r.max_hours, r.action)
            for r in found.retraining.rules
        ]
        table("retraining", ["rule", "kind", "signals", "least", "for (h)", "over (h)", "action"], asked)

    emit(found.model_dump(mode="json"), as_json=as_json, human=human)


@errors_end_well
def alerts(
    told: Annotated[bool, typer.Option("--told", help="Also what the channels were told, newest first.")] = False,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """What the watch knows: alerts that are pending or firing, signals that are not well, checks that crash.

    Example: `streamrec monitor alerts --told`
    """
    from monitoring.alerts.channels.log import read_alerts
    from monitoring.watch.state import DOCUMENT, state_from

    settings = load_settings({"home": home})
    state = state_from(documents(settings).read(DOCUMENT)[1])
    open_ = [a for a in state.alerts.values() if a.phase != "quiet"]
    document: dict[str, Any] = {
        "alerts": [
            {
                "id": a.id,
                "model": a.model,
                "subject": a.subject,
                "phase": a.phase,
                "since_us": a.since_us,
                "signals": [s.as_json() for s in a.breaches],
            }
            for a in open_
        ],
        "signals": [s.as_json() for s in sorted(state.signals, key=lambda s: (s.name, s.model))],
        "checks": {key: {name: getattr(look, name) for name in look.__slots__} for key, look in state.looks.items()},
        "waiting": len(state.outbox),
        "given_up": dict(state.given_up),
        "told": list(reversed(read_alerts(settings.home)))[:50] if told else [],
    }

    def human() -> None:
        rows = [(a.subject, a.model, a.phase, iso(a.since_us), ", ".join(s.name for s in a.breaches)) for a in open_]
        table("alerts", ["about", "model", "phase", "since", "signals"], rows)
        table(
            "signals",
            ["signal", "model", "verdict", "value", "threshold", "cause"],
            [
                (s.name, s.model, s.verdict, _figure(s.value), _figure(s.threshold), s.cause)
                for s in sorted(state.signals, key=lambda s: (s.name, s.model))
                if s.family != "run" or s.verdict != "ok"
            ],
        )
        looks = [
            (key.replace("|", " "), iso(look.at_us), f"{look.cpu_s:.2f}", f"{look.peak_mb:.0f}", look.problem)
            for key, look in sorted(state.looks.items())
        ]
        table("checks", ["check", "last look", "CPU s", "peak MB", "problem"], looks)
        for row in document["told"]:
            out.print(f"{iso(row['at_us'])}  {row['kind']}  {row['criticality']}  {row['text']}", markup=False)

    emit(document, as_json=as_json, human=human)


@errors_end_well
def retrain_check(
    act: Annotated[bool, typer.Option("--act", help="On `yes`: train, build and start the release.")] = False,
    data: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Learn from this data set [default: data export].")
    ] = None,
    forgive: Annotated[
        bool, typer.Option("--forgive", help="Failed trainings were looked at: they count no more.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="With --act: print the plan and stop.")] = False,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Whether the retraining policy asks for a training now, and why: yes, no or inconclusive.

    Example: `streamrec monitor retrain-check --act`

    The rules judge by the watch's last signals. Exit code 3 with --act when the answer is not `yes`.
    """
    from monitoring.retraining import act as acting
    from monitoring.retraining import history
    from monitoring.retraining.check import ask
    from monitoring.watch.schema import schema_of

    settings = load_settings({"home": home})
    store = documents(settings)
    forgiven = history.forgive(store) if forgive else 0
    live = live_now(settings)
    policy = schema_of(settings.home, live.champion).retraining
    with acting.exports(settings.home) as exports:
        with err.status("asking the rules, and for data where one asks for a training"):
            ruling, folder = ask(
                store,
                settings,
                policy,
                live,
                now_us=now_us(),
                cli=acting.command_line,
                exports=exports,
                data=data,
            )
        document: dict[str, Any] = {
            **ruling.as_json(),
            "champion": live.champion or None,
            "runs": history.runs_of(store)[-10:],
            "forgiven": forgiven,
            "run": None,
        }
        go = act and ruling.answer == "yes"
        if go and not as_json:
            err.print(
                f"plan: {ruling.action} on {data or 'the log, as data export gives it'}, then the gates", markup=False
            )
        if go and not dry_run and folder is not None:
            with err.status("training") as status:
                document["run"] = acting.act(
                    store,
                    ruling,
                    policy,
                    settings.home,
                    folder,
                    cli=acting.command_line,
                    clock_us=now_us,
                    say=status.update,
                )
    emit(document, as_json=as_json, human=lambda: _show(ruling, document["run"]))
    if act and not go:
        raise typer.Exit(3)
    if document["run"] and document["run"]["state"] == "failed":
        raise typer.Exit(1)


@review.command("list")
@errors_end_well
def review_list(
    everything: Annotated[bool, typer.Option("--all", help="Also those that are done.")] = False,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Look at what was answered since the last time, and list the answers that a person should see.

    Example: `streamrec monitor review list`

    The watch looks too, every hour. What is uncertain and what is dear: `[review]` of the monitoring schema. `streamrec
    replay ID` shows how it came.
    """
    from monitoring.review.queue import fill, items_of
    from monitoring.watch.schema import schema_of

    settings = load_settings({"home": home})
    live = live_now(settings)
    rules = schema_of(settings.home, live.champion).review
    queue = fill(documents(settings), settings.home, items_of(live.champion, settings.home), rules, now_us())
    cases = [c for c in queue["cases"] if everything or c["state"] == "open"]
    columns = ["request", "when", "margin", "value", "item", "state", "note"]
    rows = [
        (c["id"], iso(c["at_us"]), f"{c['margin']:.6f}", f"{c['value']:.2f}", c["item_id"], c["state"], c["note"])
        for c in cases
    ]
    document = {"cases": cases, "dropped": queue["dropped"], "owner": rules.owner}

    def human() -> None:
        table(f"to look at, by {rules.owner}", columns, rows)
        if queue["dropped"]:
            out.print(f"{queue['dropped']:,} more were over the bounds")

    emit(document, as_json=as_json, human=human)


@review.command("done")
@errors_end_well
def review_done(
    request: Annotated[str, typer.Argument(metavar="REQUEST_ID")],
    note: Annotated[str, typer.Option(help="What was found.")] = "",
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Mark an answer as looked at.

    Example: `streamrec monitor review done 0198c0de-… --note "fine"`
    """
    from monitoring.review.queue import done, open_cases

    settings = load_settings({"home": home})
    queue = done(documents(settings), request, note)
    emit(
        {"id": request, "open": open_cases(queue)},
        as_json=as_json,
        human=lambda: out.print(f"{request} is done"),
    )


@errors_end_well
def cost(
    cpu_hour: Annotated[float, typer.Option(help="Price of an hour of one core.")] = 0.04,
    gb_month: Annotated[float, typer.Option(help="Price of a gigabyte for a month.")] = 0.02,
    currency: Annotated[str, typer.Option(help="Of both.")] = "EUR",
    kept_days: Annotated[float, typer.Option(help="Days that logs are kept.")] = 30,
    context_cpu_us: Annotated[
        float | None, typer.Option(help="CPU of one context record: benchmarks/context_logging.py")
    ] = None,
    full_context_cpu_us: Annotated[
        float | None, typer.Option(help="The same of one with rows and all candidates.")
    ] = None,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Price a month of three levels of monitoring, and of serving, from CPU and bytes as they were measured here.

    Example: `streamrec monitor cost --cpu-hour 0.05 --gb-month 0.023`
    """
    from monitoring.cost import Prices
    from monitoring.cost import cost as price
    from monitoring.measured import measured
    from monitoring.watch.schema import schema_of
    from monitoring.watch.state import DOCUMENT, state_from

    settings = load_settings({"home": home})
    state = state_from(documents(settings).read(DOCUMENT)[1])
    found = measured(
        settings,
        schema_of(settings.home, live_now(settings).champion),
        state,
        now_us(),
        kept_days=kept_days,
        context_cpu_s=None if context_cpu_us is None else context_cpu_us / 1e6,
        full_context_cpu_s=None if full_context_cpu_us is None else full_context_cpu_us / 1e6,
    )
    document = price(found, Prices(cpu_hour, gb_month, currency))

    def human() -> None:
        rows = [
            (
                name,
                f"{x['cpu_hours']:.2f}",
                f"{x['stored_gb']:.4f}",
                f"{'over ' if x['unknown'] or x['not_looked_yet'] else ''}{x['month']:.2f}",
                f"as {x['same_as']}: all is logged already" if x.get("same_as") else ", ".join(x["unknown"]),
                ", ".join(x["not_looked_yet"]),
            )
            for name, x in document["levels"].items()
        ]
        if served := document["serving"]:
            rows.append(("serving", f"{served['cpu_hours']:.2f}", "", f"{served['month']:.2f}", "", ""))
        table(
            f"a month, {currency}", ["", "CPU h", "GB kept", "price", "without, not measured", "not looked yet"], rows
        )
        if document["unknown"]:
            out.print(f"not measured here: {', '.join(document['unknown'])}")

    emit(document, as_json=as_json, human=human)


def documents(settings: Settings) -> "Documents":
    """Of this home; an empty one where there is no control database, as asking does not make it."""
    from registry.control.documents import MemoryDocuments, SqlDocuments
    from registry.control.sql import control_store, exists

    return SqlDocuments(control_store(settings)) if exists(settings) else MemoryDocuments()


def live_now(settings: Settings) -> "Live":
    from cli.watch import live_of
    from monitoring.watch.watch import Live
    from registry.control.sql import control_store, exists

    return live_of(control_store(settings), settings) if exists(settings) else Live()


def now_us() -> int:
    return time.time_ns() // 1000


def iso(moment: int | None) -> str:
    return "" if moment is None else datetime.fromtimestamp(moment / 1e6, UTC).isoformat(timespec="seconds")


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def _show(ruling: "Ruling", run: dict[str, Any] | None) -> None:
    out.print(f"[bold]{ruling.answer}[/bold]  {escape(ruling.why)}", soft_wrap=True)
    if ruling.rules:
        rows = [(rule.rule, rule.action, rule.answer, rule.why) for rule in ruling.rules]
        table("rules", ["rule", "action", "says", "why"], rows)
    if ruling.next_us:
        out.print(f"not before {iso(ruling.next_us)}")
    if run:
        out.print(f"{run['id']} {run['state']} {run['problem']}", markup=False)
        for name, step in run["steps"].items():
            out.print(f"  {name}: {step}", markup=False)
