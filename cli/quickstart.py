"""`streamrec quickstart`: the whole main job, each step the command that an operator would type.

Steps run as processes of their own, so that memory which training took is free again when serving starts.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from cli import processes
from cli.output import Json, emit, err, errors_end_well, out, table
from contracts.errors import StreamRecError
from contracts.settings import Settings, load_settings


def _streamrec(*words: str) -> dict[str, Any]:
    """One step: its progress goes to our standard error, its JSON comes back."""
    err.print(f"\n[bold]$ streamrec {' '.join(words)}[/bold]", markup=True, soft_wrap=True)
    done = subprocess.run([sys.executable, "-m", "cli", *words, "--json"], stdout=subprocess.PIPE, check=False)
    if done.returncode:
        error = StreamRecError(
            f"`streamrec {words[0]}` ended with {done.returncode}; its message stands above",
            next_command=f"streamrec {' '.join(words)}",
        )
        error.exit_code = done.returncode if done.returncode > 0 else 1
        raise error
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def _post(url: str, body: dict[str, Any]) -> dict[str, Any]:
    import urllib.request

    request = urllib.request.Request(  # noqa: S310 — our own address
        url, data=json.dumps(body).encode(), headers={"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=10) as response:  # noqa: S310
        answer: dict[str, Any] = json.loads(response.read())
    return answer


def _first_user(data: Path) -> str:
    """The most active user: somebody with a history to recommend from."""
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    users = pq.read_table(data / "interactions.parquet", columns=["user_id"])["user_id"]
    counts = pc.value_counts(users).to_pylist()
    return str(max(counts, key=lambda c: (c["counts"], c["values"]))["values"])


def _mlflow(settings: Settings) -> tuple[list[str], int]:
    port = processes.free_port(5000)
    return [
        *(sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"),
        *("--backend-store-uri", settings.mlflow_uri),
        *("--artifacts-destination", str(settings.home.resolve() / "mlartifacts")),
    ], port


def register(app: typer.Typer) -> None:
    @app.command()
    @errors_end_well
    def quickstart(
        data: Annotated[Path | None, typer.Option(help="A data set; a synthetic world when not given.")] = None,
        seed: Annotated[int, typer.Option(help="Seed of the world and of the training.")] = 7,
        port: Annotated[int | None, typer.Option(help="Port of the service; a free one when taken.")] = None,
        once: Annotated[bool, typer.Option("--once", help="Stop everything after the first recommendation.")] = False,
        ui: Annotated[bool, typer.Option(help="Start the MLflow UI as well.")] = True,
        as_json: Json = False,
    ) -> None:
        """Data → train → register → build → features → serve → a recommendation, then stay up until Ctrl-C.

        Example: `streamrec quickstart --data ./my-data`
        """
        started = time.monotonic()
        settings = load_settings({"port": port})
        if data is None:
            data = settings.home / "quickstart-data"
            if not (data / "dataset.toml").exists():
                _streamrec("data", "synth", str(data), "--seed", str(seed))
        quick = ("--moments", "4", "--ranker", "ensemble")  # within 3 minutes: nothing is fitted to choose from
        trained = _streamrec("train", "--data", str(data), "--seed", str(seed), *quick)
        built = _streamrec("build")
        _streamrec("features", "materialize", "--data", str(data), "--bento", built["tag"])
        with processes.ended_by_signals():
            _serve(settings, data, built["tag"], trained, started, once=once, ui=ui, as_json=as_json)


def _serve(
    settings: Settings,
    data: Path,
    tag: str,
    trained: dict[str, Any],
    started: float,
    *,
    once: bool,
    ui: bool,
    as_json: bool,
) -> None:
    logs = settings.home / "log"
    port = processes.free_port(settings.port)
    url = f"http://{settings.host}:{port}"
    children: list[subprocess.Popen[bytes]] = []
    try:
        err.print(f"\n[bold]$ streamrec serve {tag} --port {port}[/bold]", soft_wrap=True)
        serve_log = logs / "serve.log"
        serve = processes.start([sys.executable, "-m", "cli", "serve", tag, "--port", str(port)], serve_log)
        children.append(serve)
        processes.wait_until_answers(f"{url}/readyz", serve, serve_log, 90)

        user = _first_user(data)
        body = {"user_id": user, "k": 10}
        answer = _post(f"{url}/v1/recommendations", body)
        seconds = time.monotonic() - started

        mlflow_url = None
        if ui and not once and not os.environ.get("MLFLOW_TRACKING_URI"):
            argv, mlflow_port = _mlflow(settings)
            mlflow_log = logs / "mlflow.log"
            mlflow = processes.start(argv, mlflow_log, {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"})
            children.append(mlflow)
            mlflow_url = f"http://127.0.0.1:{mlflow_port}"
            with err.status("starting the MLflow UI"):
                processes.wait_until_answers(f"{mlflow_url}/health", mlflow, mlflow_log, 120)

        document = {
            "bento": tag,
            "models": trained["models"],
            "metrics": trained["metrics"],
            "service": url,
            "mlflow": mlflow_url or os.environ.get("MLFLOW_TRACKING_URI"),
            "recommendation": answer,
            "seconds": round(seconds, 1),
        }
        emit(document, as_json=as_json, human=lambda: _print(document, body))
        sys.stdout.flush()
        if not once:
            serve.wait()
            raise StreamRecError("the service ended by itself", next_command=f"tail {serve_log}")
    except KeyboardInterrupt:
        err.print("\nstopping")
    finally:
        for child in reversed(children):
            processes.stop(child)


def _print(document: dict[str, Any], body: dict[str, Any]) -> None:
    answer = document["recommendation"]
    table(
        f"For {answer['user_id']}: {answer['degradation']}",
        ["", "item", "score", "found by"],
        [(i["position"], i["item_id"], f"{i['score']:.4f}", ", ".join(i["sources"])) for i in answer["items"]],
    )
    out.print(f"\nfrom data to the first recommendation: {document['seconds']} s")
    out.print(f"service    {document['service']}   ({document['bento']})")
    if document["mlflow"]:
        out.print(f"MLflow UI  {document['mlflow']}")
    if shutil.which("curl"):
        out.print(
            f"\ntry        curl -s {document['service']}/v1/recommendations -H 'content-type: application/json' "
            f"-d '{json.dumps(body)}'",
            soft_wrap=True,
        )
    err.print("\nCtrl-C stops everything")
