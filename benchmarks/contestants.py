"""How each server of the comparison is started, ours among them."""

import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.processes import START_S, Server, server
from benchmarks.reference_home import Reference
from contracts import tracking
from contracts.errors import NotFound

ROOT = Path(__file__).resolve().parents[1]
PEERS_CODE = ROOT / "benchmarks" / "peers"
ENVIRONMENTS = ROOT / ".venv" / "peers"
INSTALL = "benchmarks/peers/setup"
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}

# name → the words that start it, in its own environment and folder; PYTHON, BIN and PORT are filled in
PEERS: dict[str, tuple[str, ...]] = {
    "fastapi": ("BIN/uvicorn", "app:app", "--port", "PORT"),
    "bentoml_graph": ("BIN/bentoml", "serve", "service:Recommender", "--port", "PORT"),
    "ray_serve": ("PYTHON", "app.py", "PORT"),
}


@dataclass(frozen=True, slots=True)
class Place:
    """Where the servers of one comparison run."""

    reference: Reference
    folder: Path  # for homes and logs
    core: int | None


@contextmanager
def ours(
    place: Place,
    *,
    name: str = "streamrec",
    workers: int = 1,
    topology: str = "colocated",
    bento: str | None = None,
    **settings: str,
) -> Iterator[Server]:
    """`streamrec serve` as it comes: exposures, contexts, metrics, breakers and deadlines on.

    bento: a tag that is built in this server's home; else code from here with the reference's bundles. settings:
    STREAMREC_* by their names in lower case.
    """
    home = place.folder / f"{name}-home"
    if not home.exists():
        place.reference.home(home)
    env = {
        "STREAMREC_HOME": str(home),
        **({} if bento else {"STREAMREC_BUNDLES": str(place.reference.world)}),
        "STREAMREC_CONFIG": str(place.folder / "none.toml"),
        "BENTOML_HOME": str(home / "bentoml"),
        **tracking.OFF,
        "PYTHONPATH": str(ROOT),
        **{f"STREAMREC_{key.upper()}": value for key, value in settings.items()},
    }
    command = [
        sys.executable,
        "-m",
        "cli",
        "serve",
        *([bento] if bento else []),
        "--json",
        "--port",
        "0",
        "--workers",
        str(workers),
    ]
    command += ["--topology", topology]
    with server(name, command, core=place.core, log=place.folder / f"{name}.log", env=env, cwd=ROOT) as started:
        yield started


@contextmanager
def peer(name: str, place: Place) -> Iterator[Server]:
    """
    Raises:
        NotFound: its environment is not installed.
    """
    if not installed(name):
        raise NotFound(f"the peer {name} is not installed", next_command=f"{INSTALL} {name}")
    port = _free_port()
    binaries = environment(name) / "bin"
    filled = {"BIN": str(binaries), "PYTHON": str(binaries / "python"), "PORT": str(port)}
    command = [filled.get(word, word.replace("BIN/", f"{binaries}/")) for word in PEERS[name]]
    env = {
        **ONE_THREAD,
        "PEER_WORLD": str(place.reference.world),
        "PEER_STORE": str(place.reference.stores),
        "PYTHONPATH": str(PEERS_CODE / "shared"),
        "BENTOML_HOME": str(place.folder / f"{name}-bentoml"),
        **tracking.OFF,
        "RAY_USAGE_STATS_ENABLED": "0",
        "PATH": f"{binaries}:/usr/local/bin:/usr/bin:/bin",
    }
    url = f"http://127.0.0.1:{port}"
    log = place.folder / f"{name}.log"
    with server(name, command, core=place.core, log=log, env=env, cwd=PEERS_CODE / name, url=url, start_s=START_S) as s:
        yield s


def environment(name: str) -> Path:
    return ENVIRONMENTS / name


def installed(name: str) -> bool:
    return (environment(name) / ".installed").exists()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
