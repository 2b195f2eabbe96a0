"""`streamrec serve`."""

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from cli.output import Json, emit, err, errors_end_well, out
from contracts.settings import Settings, load_settings


def register(app: typer.Typer) -> None:
    @app.command()
    @errors_end_well
    def serve(
        tag: Annotated[str | None, typer.Argument(help="A Bento; the latest built when not given.")] = None,
        port: Annotated[int | None, typer.Option(help="Port to listen on; 0 takes a free one.")] = None,
        host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
        topology: Annotated[
            str | None, typer.Option(help="`colocated`: all in one process. `distributed`: a process for each runner.")
        ] = None,
        workers: Annotated[int, typer.Option(min=1, max=256, help="Entry processes; one a core is enough.")] = 1,
        drain_s: Annotated[float, typer.Option(min=0, help="Seconds between /readyz going false and the end.")] = 1.0,
        as_json: Json = False,
    ) -> None:
        """Serve a Bento over HTTP until Ctrl-C. With `--json`, one document when it is ready.

        Example: `streamrec serve streamrec:latest --port 3000 --workers 2`
        """
        from bentos.recommender.supervisor import Supervisor, listen, paths_from_here, until_told

        settings = load_settings({"port": port, "host": host, "topology": topology})
        name, what, code = _what(tag, settings)
        listener = listen(settings.host, settings.port)
        home = settings.home.resolve()
        supervisor = Supervisor(
            what,
            listener,
            topology=settings.topology,
            workers=workers,
            run=home / "run",
            code=code,
            env={
                **paths_from_here(settings),
                "BENTOML_HOME": str(home / "bentoml"),  # where `build` wrote it, whatever the environment says
            },
            drain_s=drain_s,
        )
        with until_told(supervisor, drain_s):
            supervisor.start()
            with err.status(f"loading {name}"):
                ready = supervisor.wait_ready()
            _announce(name, supervisor.url, ready, supervisor.pids(), as_json=as_json)
            supervisor.watch()


def _what(tag: str | None, settings: Settings) -> tuple[str, list[str], Path]:
    """Name, the workers' arguments, and the folder whose code they run: that of the Bento, not of this checkout.

    Raises:
        NotFound: no such Bento, or none built yet. Refused: it cannot hide users where `user_keys` is set.
    """
    if tag is None and settings.bundles is not None:
        folder = settings.bundles.resolve()
        return str(folder), ["--bundles", str(folder)], Path(__file__).resolve().parent.parent
    from registry.bento_store import stored_bento
    from registry.hiding import demand_hiding

    bento = stored_bento(tag, settings.home)
    demand_hiding(bento, settings)
    return bento.tag, ["--bento", str(bento.folder)], bento.folder / "src"


def _announce(name: str, url: str, ready: dict[str, Any], pids: dict[str, int], *, as_json: bool) -> None:
    document = {
        "url": url,
        "pid": os.getpid(),
        "bento": ready["bento"] if ready["bento"] != "unbuilt" else name,
        "topology": ready["topology"],
        "status": ready["status"],
        "processes": pids,
    }

    def human() -> None:
        out.print(f"[bold]{document['bento']}[/bold] answers on [bold]{url}[/bold] ({ready['status']}); Ctrl-C ends it")
        for component, state in ready["components"].items():
            if state["state"] != "healthy":
                err.print(f"  {component} is {state['state']}: {state['detail']}", markup=False, soft_wrap=True)

    emit(document, as_json=as_json, human=human)
