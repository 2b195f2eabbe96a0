"""A Bento becomes a container image, by buildah alone, and answers a recommendation from inside it."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from benchmarks.reference_world import write_world
from contracts.evidence import Check
from contracts.settings import Settings
from registry.artifacts import KINDS, Kind
from registry.bento_store import StoredBento
from registry.builds import build, make_plan
from registry.models import Lineage, ModelVersion, Registry

ROOT = Path(__file__).parents[2]
BASE = "localhost/streamrec-base:3.11"
IMAGE = "localhost/streamrec-e2e:latest"
BUILDAH = {**os.environ, "BUILDAH_ISOLATION": "chroot", "STORAGE_DRIVER": "vfs"}

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        os.geteuid() != 0 or not shutil.which("buildah") or not shutil.which("debootstrap"),
        reason="needs root, and: apt-get install buildah debootstrap fuse-overlayfs crun netavark",
    ),
]


def buildah(*words: str) -> str:
    return subprocess.run(["buildah", *words], env=BUILDAH, capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture(scope="module")
def registered(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[Kind, ModelVersion], StoredBento]:
    home = tmp_path_factory.mktemp("home")
    bundles = write_world(tmp_path_factory.mktemp("world"), users=50, items=400, seed=1)
    registry = Registry.open(Settings(home=home))
    lineage = Lineage("world", "ab" * 32, "", {"world": 1}, None, {"ndcg@10": 0.1}, {"popularity": {"ndcg@10": 0.0}})
    with registry.run("world") as run:
        versions = run.register(bundles, [Check(name="made", verdict="pass", detail="by hand")], lineage)
    return home, versions, build(make_plan(registry), home)


@pytest.fixture(scope="module")
def image(registered: tuple[Path, dict[Kind, ModelVersion], StoredBento]) -> Iterator[str]:
    home, _, bento = registered
    if subprocess.run(["buildah", "inspect", "--type", "image", BASE], env=BUILDAH, capture_output=True).returncode:
        subprocess.run([str(ROOT / "deploy" / "image" / "base.sh"), BASE], check=True, timeout=600)
    command = [sys.executable, "-m", "cli", "containerize", bento.tag, "--backend", "buildah", "--base-image", BASE]
    done = subprocess.run(
        [*command, "--isolated", "--image", IMAGE, "--home", str(home), "--json"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["image"] == IMAGE
    yield IMAGE
    subprocess.run(["buildah", "rmi", "--force", IMAGE], env=BUILDAH, capture_output=True)


def test_the_labels_name_the_mlflow_versions_and_the_user_is_not_root(
    registered: tuple[Path, dict[Kind, ModelVersion], StoredBento], image: str
) -> None:
    config = json.loads(buildah("inspect", "--type", "image", image))["OCIv1"]["config"]
    _, versions, bento = registered
    for kind in KINDS:
        assert config["Labels"][f"streamrec.mlflow.{kind}"] == versions[kind].uri
    assert config["Labels"]["org.opencontainers.image.title"] == bento.tag
    assert config["User"] == "bentoml"


def test_it_answers_a_recommendation_from_inside(
    registered: tuple[Path, dict[Kind, ModelVersion], StoredBento], image: str
) -> None:
    with running(image) as (port, container):
        assert "uid=0" not in buildah("run", container, "--", "id")
        body = json.dumps({"user_id": "u1", "k": 5}).encode()
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}/v1/recommendations", body, {"content-type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=30) as response:  # noqa: S310
            answer: dict[str, Any] = json.load(response)
    assert answer["bento"] == registered[2].tag
    assert answer["ranked_by"] == "dcn"
    assert len(answer["items"]) == 5


@contextmanager
def running(image: str) -> Iterator[tuple[int, str]]:
    """The image's own entry point, as its own user; yields the port once it is ready."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    container = buildah("from", image)
    entry = "/home/bentoml/bento/env/docker/entrypoint.sh"
    process = subprocess.Popen(
        [
            "buildah",
            "run",
            "--network",
            "host",
            container,
            "--",
            entry,
            "--host",
            "127.0.0.1",
            "--port",
            str(port),
        ],
        env=BUILDAH,
    )
    try:
        deadline = time.monotonic() + 90
        while not ready(port):
            assert process.poll() is None, "the service ended before it was ready"
            assert time.monotonic() < deadline, "the service was not ready in 90 s"
            time.sleep(0.2)
        yield port, container
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
        buildah("rm", container)


def ready(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=2) as response:
            return bool(response.status == 200)
    except (urllib.error.URLError, OSError):
        return False
