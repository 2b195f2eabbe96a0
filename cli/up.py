"""`streamrec up`, `down` and `status`: the whole stack on one machine."""

import os
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli import processes
from cli.output import Json, emit, err, errors_end_well, out, table
from contracts.errors import StreamRecError, Unreachable
from contracts.settings import Settings, load_settings

if TYPE_CHECKING:
    from registry.processes.plan import Process
    from registry.processes.stack import Stack

Home = Annotated[Path | None, typer.Option(help="STREAMREC_HOME")]
READY_S = 90.0
MLFLOW_PORT = 5000


def register(app: typer.Typer) -> None:
    @app.command()
    @errors_end_well
    def up(
        port: Annotated[int | None, typer.Option(help="Port of the gateway; 0 takes a free one.")] = None,
        host: Annotated[str | None, typer.Option(help="Address that the gateway listens on.")] = None,
        gateways: Annotated[int | None, typer.Option(help="Gateway processes.")] = None,
        workers: Annotated[int | None, typer.Option(help="Worker processes of each live Bento.")] = None,
        ui: Annotated[bool, typer.Option(help="Start the MLflow UI as well.")] = True,
        foreground: Annotated[
            bool, typer.Option("--foreground", help="Stay until Ctrl-C, then end everything.")
        ] = False,
        home: Home = None,
        as_json: Json = False,
    ) -> None:
        """Start gateway, controller, consumer, watch, MLflow and the live Bentos, supervised; return when they answer.

        Example: `streamrec up --port 3000`

        The first champion comes with `streamrec release start TAG`.
        """
        from registry.processes.stack import Stack

        settings = load_settings(
            {"gateway_port": port, "host": host, "gateway_processes": gateways, "workers": workers, "home": home}
        )
        stack = Stack(settings.home)
        log = settings.home.resolve() / "log" / "stack.log"
        mlflow = processes.free_port(MLFLOW_PORT) if ui and not os.environ.get("MLFLOW_TRACKING_URI") else None
        with processes.ended_by_signals(), err.status("starting") as status:
            try:
                stack.start(
                    lambda: _processes(settings, stack, mlflow, status.update),
                    settings.host,
                    settings.gateway_port,
                    log,
                )
                document = _wait(settings, stack, status.update)
            except (KeyboardInterrupt, StreamRecError):
                if foreground or not _champion_known(settings):
                    stack.stop()
                raise
        emit(document, as_json=as_json, human=lambda: _print(document))
        if foreground:
            sys.stdout.flush()
            _stay(stack)

    @app.command()
    @errors_end_well
    def down(
        dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would end and stop.")] = False,
        home: Home = None,
        as_json: Json = False,
    ) -> None:
        """End everything that `up` started; requests under way are finished first.

        Example: `streamrec down`
        """
        from registry.processes.stack import Stack

        settings = load_settings({"home": home})
        stack = Stack(settings.home)
        state = stack.state
        running = {name: list(r.pids) for name, r in state.processes.items()} if state else {}
        if dry_run:
            emit({"dry_run": True, "running": running}, as_json=as_json)
            return
        began = time.monotonic()
        with err.status("ending what is under way, then the processes"):
            killed = stack.stop()
        document = {"ended": running, "killed": killed, "seconds": round(time.monotonic() - began, 1)}

        def human() -> None:
            if not running and not killed:
                out.print("nothing was running")
                return
            out.print(f"ended {sum(map(len, running.values()))} processes in {document['seconds']} s")
            if killed:
                err.print(f"  had to be killed: {', '.join(map(str, killed))}")

        emit(document, as_json=as_json, human=human)

    @app.command()
    @errors_end_well
    def status(home: Home = None, as_json: Json = False) -> None:
        """What runs, what answers, and who is champion.

        Example: `streamrec status`
        """
        settings = load_settings({"home": home})
        from registry.processes.stack import Stack

        document = _document(settings, Stack(settings.home))
        emit(document, as_json=as_json, human=lambda: _print(document))
        if not document["running"]:
            raise typer.Exit(5)


def _processes(
    settings: Settings, stack: "Stack", mlflow_port: int | None, say: Callable[[str], None]
) -> "list[Process]":
    """What the stack starts with; the controller adds the Bentos."""
    from registry.builds import gateway_bento
    from registry.drivers.local import environment
    from registry.keys import routing_signer
    from registry.processes.plan import Process

    home = settings.home.resolve()
    logs = home / "log"
    logs.mkdir(parents=True, exist_ok=True)
    routing_signer(home)  # gateways read its public half at their start
    serving = environment(settings, stack.folder)
    code = str(Path(__file__).resolve().parents[1])
    say("looking for the gateway's Bento")
    gateway = gateway_bento(settings.home)
    metrics = stack.folder / "metrics-gateway"  # of these processes together
    shutil.rmtree(metrics, ignore_errors=True)
    metrics.mkdir()
    found = [
        Process(
            name="consumer",
            argv=(sys.executable, "-m", "bentos.telemetry.consumer", "--home", str(home), "--stay"),
            cwd=code,
            log=str(logs / "consumer.log"),
            env=serving,
        ),
        Process(
            name="gateway",
            argv=(
                sys.executable,
                *("-m", "bentos.recommender.worker"),
                *("--bento", str(gateway.folder)),
                *("--fd", "{fd}"),
            ),
            cwd=str(gateway.folder / "src"),
            log=str(logs / "gateway.log"),
            env=serving | {"PROMETHEUS_MULTIPROC_DIR": str(metrics)},
            count=settings.gateway_processes,
        ),
        Process(
            name="controller",
            argv=(sys.executable, "-m", "cli.controller"),
            cwd=code,
            log=str(logs / "controller.log"),
            env=_controller_environment(settings, serving),
        ),
    ]
    found.append(
        Process(
            name="watch",
            argv=(sys.executable, "-m", "cli.watch"),
            cwd=code,
            log=str(logs / "watch.log"),
            env=_watch_environment(settings, serving),
        )
    )
    if mlflow_port is not None:
        found.append(
            Process(
                name="mlflow",
                argv=(
                    sys.executable,
                    *("-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(mlflow_port), "--workers", "1"),
                    *("--backend-store-uri", settings.mlflow_uri),
                    *("--artifacts-destination", str(home / "mlartifacts")),
                ),
                cwd=str(home),
                log=str(logs / "mlflow.log"),
                env=serving | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
            )
        )
    return found


def _controller_environment(settings: Settings, serving: dict[str, str]) -> dict[str, str]:
    """The controller's own settings: it alone speaks to the control database and starts Bentos."""
    found = {
        **serving,
        "STREAMREC_WORKERS": str(settings.workers),
        "STREAMREC_GATEWAY_PROCESSES": str(settings.gateway_processes),
    }
    if settings.control_db:
        found["STREAMREC_CONTROL_DB"] = settings.control_db
    return found


def _watch_environment(settings: Settings, serving: dict[str, str]) -> dict[str, str]:
    """The watch's own settings: it sends alerts, and starts trainings and releases through the commands."""
    found = {
        **_controller_environment(settings, serving),
        "STREAMREC_WATCH_PORT": str(settings.watch_port),
        "STREAMREC_RETRAIN": str(settings.retrain).lower(),
    }
    secrets = {
        "STREAMREC_ALERT_WEBHOOK": settings.alert_webhook,
        "STREAMREC_ALERT_SECRET": settings.alert_secret,
        "STREAMREC_OPERATOR_TOKEN": settings.operator_token,
    }
    return found | {name: value for name, value in secrets.items() if value}


def _wait(settings: Settings, stack: "Stack", say: Callable[[str], None]) -> dict[str, Any]:
    """Until all processes run and the gateway answers; where there is a champion, until it serves.

    Raises:
        Unreachable: not in time; names the process and its log.
    """
    until = time.monotonic() + READY_S
    while time.monotonic() < until:
        state = stack.state
        if state is None:
            raise Unreachable("the supervisor has ended", next_command=f"tail {settings.home / 'log' / 'stack.log'}")
        for name, running in state.processes.items():
            if running.deaths >= 5:
                raise Unreachable(
                    f"{name} ended {running.deaths} times, last with {running.last_exit}",
                    next_command=f"tail {settings.home / 'log' / f'{name}.log'}",
                )
        document = _document(settings, stack)
        waiting = [name for name, part in document["parts"].items() if part["state"] != "up"]
        if document["champion"] and not document["serving"]:
            waiting.append(document["champion"])
        if not waiting:
            return document
        say("waiting for " + ", ".join(waiting))
        time.sleep(0.2)
    raise Unreachable(f"not up within {READY_S:.0f} s: {', '.join(waiting)}", next_command="streamrec status")


def _champion_known(settings: Settings) -> bool:
    return _control(settings)[0] is not None


def _document(settings: Settings, stack: "Stack") -> dict[str, Any]:
    state = stack.state
    champion, release, problem = _control(settings)
    document: dict[str, Any] = {
        "running": state is not None,
        "serving": False,
        "url": state.url if state else None,
        "mlflow": None,
        "champion": champion,
        "release": release,
        "parts": {},
        "problems": [problem] if problem else [],
    }
    if state is None:
        return document
    if settings.driver == "local":
        document["bentos"] = sorted({n for n in state.processes if n.startswith("bento-")})
    for name, running in state.processes.items():
        whole = len(running.pids) == running.wanted
        document["parts"][name] = {
            "state": "up" if whole else "restarting",
            "pids": list(running.pids),
            "deaths": running.deaths,
            "last_exit": running.last_exit,
        }
    gateway = _ask(f"{state.url}/readyz")
    document["gateway"] = gateway
    document["serving"] = gateway is not None and gateway.get("status") not in (None, "unavailable")
    if "gateway" in document["parts"] and not gateway:
        document["parts"]["gateway"]["state"] = "starting"
    if "mlflow" in state.processes:
        url = _mlflow_url(stack)
        document["mlflow"] = url
        if _ask(f"{url}/health", text=True) is None:
            document["parts"]["mlflow"]["state"] = "starting"
    return document


def _control(settings: Settings) -> tuple[str | None, dict[str, Any] | None, str]:
    """(champion, release, problem) from the control database, if there is one."""
    from registry.control.sql import control_store, exists

    if not exists(settings):
        return None, None, ""
    try:
        state = control_store(settings).load()
    except StreamRecError as error:
        return None, None, error.message
    release = state.release
    champion = state.champion.bento if state.champion else None
    if release is None:
        return champion, None, ""
    step = release.current.name if release.current else ""
    return champion, {"id": release.id, "candidate": release.candidate.bento, "state": release.state, "step": step}, ""


def _mlflow_url(stack: "Stack") -> str:
    argv = next(p.argv for p in stack.plan.processes if p.name == "mlflow")
    return f"http://127.0.0.1:{argv[argv.index('--port') + 1]}"


def _ask(url: str, *, text: bool = False) -> dict[str, Any] | None:
    """A JSON document, also of a 503; None when nobody answers."""
    import json
    import urllib.error
    import urllib.request

    try:
        with urllib.request.urlopen(url, timeout=2) as answer:  # noqa: S310 — our own address
            return {} if text else dict(json.load(answer))
    except urllib.error.HTTPError as error:
        try:
            return {**json.load(error), "status": "unavailable"}
        except ValueError:
            return None
    except (OSError, ValueError):
        return None


def _print(document: dict[str, Any]) -> None:
    if not document["running"]:
        out.print("nothing runs here; next: [bold]streamrec up[/bold]")
        for problem in document["problems"]:
            err.print(f"  {problem}", markup=False)
        return
    table(
        "stack",
        ["part", "state", "pids", "ended (last minute)"],
        [
            (name, part["state"], ", ".join(map(str, part["pids"])), part["deaths"] or "")
            for name, part in sorted(document["parts"].items())
        ],
    )
    out.print(f"gateway    {document['url']}   {'serves' if document['serving'] else 'has nothing to serve'}")
    if document["mlflow"]:
        out.print(f"MLflow UI  {document['mlflow']}")
    if document["champion"]:
        out.print(f"champion   {document['champion']}")
    else:
        out.print("champion   none; next: [bold]streamrec release start TAG[/bold]")
    if release := document["release"]:
        out.print(f"release    {release['id']}: {release['candidate']} is {release['state']} {release['step']}")
    for problem in document["problems"]:
        err.print(f"  {problem}", markup=False)


def _stay(stack: "Stack") -> None:
    """Until Ctrl-C or SIGTERM, or until the supervisor has gone."""
    with processes.ended_by_signals():
        try:
            while stack.running:
                time.sleep(0.2)
        except KeyboardInterrupt:
            err.print("stopping")
            stack.stop()
            return
    raise Unreachable("the supervisor has ended", next_command="streamrec up")
