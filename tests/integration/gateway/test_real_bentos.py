"""The gateway over real Bentos: the same requests, and what happens when one of their workers is killed."""

import os
import subprocess
import sys

import pytest

from benchmarks.reference_world import write_world
from contracts import tracking
from tests.integration.gateway.conftest import FRONT_KEY, ROOT, TOKEN, Load, canary
from tests.serving_processes import wait_until


class Bento:
    """A worker on a Unix socket; stands where the other tests have a stub."""

    def __init__(self, world, bundles, name: str) -> None:
        self.name = name
        self.url = f"unix:{world.folder / name}.sock"
        self._command = [
            *(sys.executable, "-m", "bentos.recommender.worker", "--bundles", str(bundles)),
            *("--uds", self.url.removeprefix("unix:"), "--drain-s", "0.2"),
        ]
        self._env = {
            **{k: v for k, v in os.environ.items() if not k.startswith("STREAMREC_")},
            "STREAMREC_HOME": str(world.home),
            "STREAMREC_FRONT_KEY": FRONT_KEY,
            "STREAMREC_DEADLINE_MS": "5000",
            "STREAMREC_PATIENCE_MS": "5000",
            "STREAMREC_RETRIEVAL_BUDGET_MS": "2000",
            "BENTOML_HOME": str(world.folder / "bentoml"),
            **tracking.OFF,
        }
        self._log = world.folder / f"{name}.log"
        self.process: subprocess.Popen | None = None
        self.start()

    def start(self) -> None:
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(self._command, cwd=ROOT, env=self._env, stdout=log, stderr=log)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture
def real(world, tmp_path):
    write_world(tmp_path / "world", users=100, items=400)
    for name in ("alpha", "beta"):
        world.stubs[name] = Bento(world, tmp_path / "world", name)
    world.write(release=canary(50, shadow=0))
    world.start(deadline_ms=5000)
    wait_until(lambda: {u["state"] for u in world.ready()["upstreams"].values()} == {"ready"}, 60, "both Bentos")
    wait_until(lambda: world.ready()["last_resort"]["popularity"], 20, "the popularity list")
    return world


def test_real_bentos_behind_the_gateway(real):
    assert real.ready()["status"] == "ready", real.ready()
    for n in range(20):
        answer = real.recommend(f"u{n}", k=20, context={"country": "DE"})
        assert answer.status_code == 200, answer.text
        assert answer.json()["variant"] in ("candidate", "control")
        assert len(answer.json()["items"]) == 20
    exposures = wait_until(lambda: len(found := real.exposures()) >= 20 and found, 10, "the exposures")
    assert len(exposures) == 20  # the gateway's alone
    assert {e["clock_us"] for e in exposures} == {1_700_000_000_000_000}
    assert all(e["versions"]["rules"] and e["versions"]["features"] for e in exposures)
    assert all(e["states"]["topology"] and e["states"]["machine"] for e in exposures)  # as the Bento told them
    assert {a["outcome"] for a in real.attempts()} == {"ok"}
    request_id = exposures[0]["request_id"]  # the context is the Bento's, found from the gateway
    path, headers = f"/v1/requests/{request_id}", {"authorization": f"Bearer {TOKEN}"}
    wait_until(lambda: real.http.get(path, headers=headers).status_code == 200, 10, "the context")

    with Load(real.url, clients=3) as running:
        running.wait(30)
        real.stubs["beta"].kill()  # the candidate: the champion answers
        running.wait(60)
        assert {v for _, _, v in running.results[-20:]} <= {"champion", "control"}
        real.stubs["alpha"].kill()  # and the champion: the gateway itself
        running.wait(60)
        assert {v for _, _, v in running.results[-20:]} == {"fallback"}
        real.stubs["alpha"].start()
        wait_until(lambda: real.ready()["upstreams"]["alpha"]["state"] == "ready", 60, "the champion is back")
        wait_until(lambda: running.results[-1][2] in ("champion", "control"), 10, "its answers")
    assert not running.failed
