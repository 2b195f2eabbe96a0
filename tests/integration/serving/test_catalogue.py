"""The live catalogue over HTTP: two worker processes and their consumer, none of which is spared."""

import contextlib
import os
import signal
import time
from datetime import UTC, datetime
from urllib.parse import quote

import httpx
import pytest

from benchmarks.reference_world import NOW_US, item_id
from bentos.telemetry.rendezvous import lock_path
from features.online.base import PrecomputedList
from features.online.sqlite import SqliteStore
from tests.serving_processes import TOKEN, Served, free_port, running, wait_until

KEY = "a-front-key-of-the-tests"
SERVE = ["-m", "cli", "serve", "--port", "0", "--json", "--drain-s", "0", "--workers", "2"]
MAY = {"authorization": f"Bearer {TOKEN}"}


@pytest.fixture
def start(world, tmp_path):
    fixed = {"STREAMREC_FRONT_KEY": KEY, "STREAMREC_ITEM_COUNTS_S": "0.5"}
    return lambda **more: running(SERVE, tmp_path / "home", world, **fixed, **more)


def change(served: Served, method: str, path: str, body: object = None, headers: dict = MAY) -> httpx.Response:
    return httpx.request(method, f"{served.url}/v1/items{path}", json=body, headers=headers, timeout=30)


def documents(served: Served) -> dict[int, dict]:
    """/readyz of both workers, over new connections."""
    found: dict[int, dict] = {}
    until = time.monotonic() + 30
    while len(found) < 2:
        assert time.monotonic() < until, f"one worker alone answers: {found}"
        with contextlib.suppress(OSError):
            document = served.ready()
            found[document["pid"]] = document
    return found


def agreed(served: Served, version: int) -> None:
    """Both workers have this version. What is promised is 2 s; a busy machine may take longer."""
    said = f"version {version}"
    wait_until(
        lambda: all(d["components"]["catalogue"]["detail"] == said for d in documents(served).values()),
        30,
        f"version {version} in both workers",
    )


def shown(served: Served, rung: str, k: int = 100) -> set[str]:
    """Item ids of answers over several new connections, so that both workers have their say."""
    headers = {"x-streamrec-front": KEY} | ({"x-streamrec-rung": rung} if rung == "popularity" else {})
    found: set[str] = set()
    for _ in range(6):
        answer = httpx.post(
            f"{served.url}/v1/recommendations", json={"user_id": "u1", "k": k}, headers=headers, timeout=30
        ).json()
        assert answer["degradation"] in {"full": ("full", "stale_features")}.get(rung, (rung,)), answer
        found |= {item["item_id"] for item in answer["items"]}
    return found


def sources(served: Served) -> dict[str, list[str]]:
    """Item → the sources that brought it, of what a new user may be shown."""
    items = served.recommend(user_id="nobody", k=400)["items"]
    return {item["item_id"]: item["sources"] for item in items}


def test_what_is_taken_down_leaves_every_rung_of_every_process_and_no_kill_brings_it_back(start, tmp_path):
    store = SqliteStore(tmp_path / "home")
    ids = tuple(item_id(row) for row in range(100, 200))
    made = PrecomputedList(ids, tuple(1 / (n + 1) for n in range(100)), "s1", "m1", NOW_US, "all")
    store.publish_lists("s1", {"u1": made})
    with start() as served:
        full, popular = (shown(served, rung) for rung in ("full", "popularity"))
        flagged, removed = sorted(full & popular)[0], sorted(full - popular)[0]
        listed = item_id(150)
        answer = change(served, "POST", f"/{flagged}/flag")
        assert (answer.status_code, answer.json()) == (200, {"version": 1, "changed": [flagged], "unchanged": 0})
        assert change(served, "POST", f"/{flagged}/flag").json() == {"version": 1, "changed": [], "unchanged": 1}
        assert change(served, "DELETE", f"/{removed}").json()["version"] == 2
        assert change(served, "DELETE", f"/{listed}").json()["version"] == 3
        agreed(served, 3)
        gone = {flagged, removed, listed}
        for rung in ("full", "popularity"):
            assert not gone & shown(served, rung), rung

        # New: through content, in both workers; its id needs quoting in an address.
        new = {"item_id": "a/new one", "category": "category 3", "price": 3.5}
        assert change(served, "PUT", "", [new]).json() == {"version": 4, "changed": ["a/new one"], "unchanged": 0}
        agreed(served, 4)
        wait_until(lambda: "a/new one" in sources(served), 60, "the new item in an answer")
        assert sources(served)["a/new one"] == ["content"]
        now = datetime.now(UTC).isoformat()
        liked = [
            {"event_id": f"e{n}", "user_id": f"v{n}", "item_id": "a/new one", "event": "click", "timestamp": now}
            for n in range(1000)
        ]
        assert served.http.post("/v1/events", json=liked).json()["accepted"] == 1000
        wait_until(lambda: "trending" in sources(served)["a/new one"], 60, "the new item among what trends")

        # The consumer is killed: the next change starts another, and nothing is lost.
        os.kill(int(lock_path(served.home).read_text()), signal.SIGKILL)
        answer = change(served, "POST", f"/{quote('a/new one', safe='')}/flag", {"flagged": True})
        assert answer.json() == {"version": 5, "changed": ["a/new one"], "unchanged": 0}
        agreed(served, 5)
        assert "a/new one" not in shown(served, "full", 400)

        # A worker is killed: the one in its place knows it all before it answers.
        first = served.document["processes"]
        os.kill(first["worker 1"], signal.SIGKILL)
        wait_until(lambda: set(documents(served)) - set(first.values()), 60, "a new worker")
        agreed(served, 5)
        for rung in ("full", "popularity"):
            assert not gone & shown(served, rung), rung
        pid = int(lock_path(served.home).read_text())
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    with start(STREAMREC_AIM="lists") as served:
        for document in documents(served).values():  # ready, and so it knows
            assert document["components"]["catalogue"] == {"state": "healthy", "detail": "version 5"}
        for rung in ("batch", "popularity"):
            assert not (gone | {"a/new one"}) & shown(served, rung), rung
        assert item_id(151) in shown(served, "batch")
        assert change(served, "DELETE", f"/{item_id(151)}").json()["version"] == 6
        assert change(served, "POST", f"/{flagged}/flag", {"flagged": False}).json()["changed"] == [flagged]
        agreed(served, 7)
        assert item_id(151) not in shown(served, "batch")
        assert flagged in shown(served, "popularity")

        # Who may, and what is off.
        assert change(served, "PUT", "", [new], headers={}).status_code == 401
        assert change(served, "DELETE", "/i1", headers={"authorization": "Bearer x"}).status_code == 403
        broken = change(served, "PUT", "", [new, {"item_id": "b", "category": 7}])
        assert (broken.status_code, broken.json()["field"]) == (400, "items[1].category")
        assert change(served, "POST", "/a/new one/flag").status_code == 404
        assert change(served, "GET", "/i1").status_code == 405
        assert change(served, "DELETE", "/").status_code == 400
        assert change(served, "DELETE", "/%00").status_code == 400
        assert change(served, "DELETE", "/%ff").status_code == 400


def test_a_catalogue_that_cannot_be_read_at_the_start_keeps_the_service_from_answering(world, tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    (home / "catalogue.db").write_bytes(b"nothing that SQLite knows" * 200)
    url = f"http://127.0.0.1:{free_port()}"
    worker = ["-m", "bentos.recommender.worker", "--bundles", str(world), "--port", url.rpartition(":")[2]]
    with running([*worker, "--drain-s", "0"], home, world, url, until=503) as served:
        ready = wait_until(lambda: httpx.get(f"{url}/readyz").json().get("components"), 60, "its components")
        assert ready["catalogue"]["state"] == "unhealthy"
        assert "catalogue.db" in ready["catalogue"]["detail"]
        refused = served.http.post("/v1/recommendations", json={"user_id": "u1"})
        assert (refused.status_code, refused.json()["type"]) == (503, "urn:streamrec:problem:unavailable")
        assert change(served, "POST", "/i1/flag").status_code == 503
        (home / "catalogue.db").unlink()  # mended: no restart is needed
        wait_until(lambda: httpx.get(f"{url}/readyz").status_code == 200, 20, "ready")
        assert change(served, "POST", "/i1/flag").json()["version"] == 1
