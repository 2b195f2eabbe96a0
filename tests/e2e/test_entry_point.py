"""What an image starts, without a builder of images: the entry point of the generated Dockerfile, in the folder that
BentoML hands to a builder."""

import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
import yaml

from benchmarks.reference_world import write_world
from contracts import tracking
from contracts.evidence import Check
from contracts.settings import Settings
from registry.builds import build, make_plan
from registry.models import Lineage, Registry
from tests.serving_processes import Served, alive, answers, end_what_is_left, free_port, wait_until

IN_IMAGE = "/home/bentoml/bento"
UNPACK = """
import shutil, sys, bentoml
from bentoml._internal.container import construct_containerfile
with construct_containerfile(bentoml.get(sys.argv[1]), enable_buildkit=False) as (folder, _):
    shutil.copytree(folder, sys.argv[2])
"""


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Sources, models and scripts as an image has them in /home/bentoml/bento; the Dockerfile."""
    home = tmp_path_factory.mktemp("home")
    bundles = write_world(tmp_path_factory.mktemp("world"), users=50, items=400, seed=1)
    registry = Registry.open(Settings(home=home))
    lineage = Lineage("world", "ab" * 32, "", {"world": 1}, None, {"ndcg@10": 0.1}, {"popularity": {"ndcg@10": 0.0}})
    with registry.run("world") as run:
        run.register(bundles, [Check(name="made", verdict="pass", detail="by hand")], lineage)
    bento = build(make_plan(registry), home)
    folder = home / "unpacked"
    subprocess.run(
        [sys.executable, "-c", UNPACK, bento.tag, str(folder)],
        env={**os.environ, "BENTOML_HOME": str(home / "bentoml"), **tracking.OFF},
        check=True,
    )
    return folder, (folder / "env" / "docker" / "Dockerfile").read_text()


@contextmanager
def started(folder: Path, dockerfile: str, home: Path, *words: str, **env: str) -> Iterator[Served]:
    """The ENTRYPOINT with its ENV, elsewhere than in the image and on 127.0.0.1 alone."""
    (entry,) = re.findall(r'^ENTRYPOINT \[ "(.+)" \]$', dockerfile, re.MULTILINE)
    variables = {name: shlex.split(value)[0] for name, value in re.findall(r"^ARG (\w+)=(.+)$", dockerfile, re.M)}
    assert variables["STREAMREC_HOST"] == "0.0.0.0"  # noqa: S104 - of a container
    port = free_port()
    home.mkdir()
    with (home / "log").open("wb") as log:
        process = subprocess.Popen(
            ["bash", entry.replace(IN_IMAGE, str(folder)), *words],
            cwd=folder,
            env={
                **variables,
                "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
                "BENTO_PATH": str(folder),
                "BENTOML_HOME": str(home),
                "STREAMREC_HOME": str(home),
                "STREAMREC_HOST": "127.0.0.1",
                "STREAMREC_DEADLINE_MS": "20000",
                "STREAMREC_RANKING_BUDGET_MS": "10000",
                "PORT": str(port),
                **env,
            },
            stdout=log,
            stderr=log,
        )
    try:
        yield Served(f"http://127.0.0.1:{port}", process, home)
    finally:
        process.terminate()
        process.wait(30)
        end_what_is_left(home)


def test_the_dockerfile_is_bentomls_own_and_its_user_has_no_rights(unpacked: tuple[Path, str]) -> None:
    folder, dockerfile = unpacked
    assert "\nUSER bentoml" in dockerfile
    assert "\nEXPOSE 3000" in dockerfile
    assert "STOPSIGNAL" not in dockerfile  # SIGTERM, and `exec` hands it to the service
    assert yaml.safe_load((folder / "bento.yaml").read_text())["image"]["base_image"].startswith("python:3.11")
    for name in ("entrypoint.sh", "bentoml-entrypoint.sh"):
        assert os.access(folder / "env" / "docker" / name, os.R_OK)


def test_it_starts_what_streamrec_serve_starts_and_ends_it_without_losing_a_request(
    unpacked: tuple[Path, str], tmp_path: Path
) -> None:
    with started(*unpacked, tmp_path / "home", "--drain-s", "2") as served:
        wait_until(lambda: answers(served.url) or served.process.poll() is not None, 90, "the service")
        assert served.process.poll() is None, (served.home / "log").read_text()
        answer = served.recommend(user_id="u1", k=5)
        assert answer["bento"].startswith("streamrec:")
        assert (answer["degradation"], answer["ranked_by"], len(answer["items"])) == ("full", "dcn", 5)
        family = [p.pid for p in psutil.Process(served.process.pid).children(recursive=True)]
        assert family
        served.process.send_signal(signal.SIGTERM)
        wait_until(lambda: answers(served.url, 503), why="/readyz false while it still listens")
        assert served.recommend(user_id="u2", k=5)["items"]
        assert served.process.wait(30) == 0
        wait_until(lambda: not any(map(alive, family)), why="the end of every process")


def test_other_commands_go_to_bentomls_script(unpacked: tuple[Path, str], tmp_path: Path) -> None:
    with started(*unpacked, tmp_path / "home", "bentoml", "--version") as done:
        assert done.process.wait(60) == 0
    assert "version" in (tmp_path / "home" / "log").read_text()


def test_settings_that_are_wrong_end_it_with_their_exit_code(unpacked: tuple[Path, str], tmp_path: Path) -> None:
    with started(*unpacked, tmp_path / "home", STREAMREC_TOPOLOGY="scattered") as done:
        assert done.process.wait(60) == 2
    assert "topology" in (tmp_path / "home" / "log").read_text()
