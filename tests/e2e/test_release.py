"""A release from one end to the other: commands, real processes, HTTP, and what happens when each of them is killed."""

import os
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from tests.e2e.stack import Cli, Traffic, make_home, until

POLICY = Path(__file__).with_name("policy.toml")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    home, tags = make_home(tmp_path_factory.mktemp("release"))
    (home / "policies").mkdir()
    shutil.copy(POLICY, home / "policies" / "e2e.toml")
    return home, tags


@pytest.fixture(scope="module")
def stack(made: tuple[Path, list[str]]) -> Iterator[tuple[Cli, str, list[str]]]:
    """The stack with the first Bento as champion."""
    home, tags = made
    cli = Cli(home)
    up = cli("up", "--port", "0", "--no-ui")
    try:
        assert up["champion"] is None
        assert httpx.post(f"{up['url']}/v1/recommendations", json={"user_id": "u1"}).status_code == 503
        first = cli("release", "start", tags[0], "--policy", "e2e")
        assert first["changed"]
        until(lambda: cli("status")["serving"], what="the first champion serves")
        yield cli, up["url"], tags
    finally:
        state = cli.run("status", "--json").stdout
        down = cli("down")
        assert not down["killed"], (down, state, cli.logs())
        left = [
            p.info for p in psutil.process_iter(["pid", "cmdline"]) if str(home) in " ".join(p.info["cmdline"] or ())
        ]
        assert not left, left


def pids(cli: Cli, part: str) -> list[int]:
    parts = cli("status")["parts"]
    return [pid for name, each in parts.items() if name.startswith(part) for pid in each["pids"]]


def version(tag: str) -> str:
    return tag.rpartition(":")[2]


def test_a_candidate_walks_from_shadow_to_promotion_and_back(stack: tuple[Cli, str, list[str]]) -> None:
    cli, url, tags = stack
    assert cli("release", "status")["champion"] == tags[0]
    refused = cli("release", "promote", code=3)
    assert "error" in refused
    cli("release", "start", tags[1], "--policy", "e2e", "--hypothesis", "it is no worse")
    cli("release", "start", tags[1], "--policy", "e2e", code=3)  # two at once

    with Traffic(url) as traffic:

        def promoted() -> bool:
            release = cli.release()
            assert release["state"] != "rolled_back", release
            return bool(release["state"] == "promoted")

        until(promoted, 150, "the promotion")
        until(lambda: traffic.answers[-1]["bento"] == tags[1], what="everyone on the new champion")

        began = time.monotonic()
        cli("release", "rollback", "--reason", "a test")
        decided = time.monotonic()
        until(lambda: all(a["bento"] == tags[0] for a in traffic.answers[-10:]), what="everyone back")
        assert time.monotonic() - decided < 5, f"{time.monotonic() - began:.1f} s"
    assert traffic.failed == []
    variants = {a["variant"] for a in traffic.answers}
    assert {"champion", "candidate", "control"} <= variants
    assert cli("release", "status")["champion"] == tags[0]
    history = cli("release", "history", "--verify", "--limit", "500")
    assert history["verified"] is True
    told = " ".join(str(e["detail"].get("reason")) for e in history["entries"])
    for step in ("shadow 100 %", "canary 10 %", "canary 50 %", "canary 100 %"):
        assert f"{step} has passed" in told
    assert any("rollback" in e["action"] for e in history["entries"])


@pytest.fixture
def at_half(stack: tuple[Cli, str, list[str]]) -> Iterator[tuple[Cli, str, list[str]]]:
    """A release held at 50 %."""
    cli, url, tags = stack
    cli("release", "start", tags[1], "--policy", "e2e")
    until(lambda: cli.release()["state"] in ("created", "shadow"))
    cli("release", "canary", "--weight", "50")
    cli("release", "pause", "--reason", "hold it here")
    with httpx.Client(base_url=url) as client:

        def both() -> bool:
            seen = {
                client.post("/v1/recommendations", json={"user_id": f"u{n}"}).json().get("bento") for n in range(30)
            }
            return set(tags) <= seen

        until(both, what="both Bentos answer")
    yield stack
    if cli.release()["state"] not in ("rolled_back", "promoted"):
        cli("release", "rollback")


@pytest.mark.parametrize("victim", ["candidate", "champion", "controller", "gateway", "consumer"])
def test_a_killed_process_costs_no_request(at_half: tuple[Cli, str, list[str]], victim: str) -> None:
    cli, url, tags = at_half
    part = {"candidate": f"bento-{version(tags[1])}", "champion": f"bento-{version(tags[0])}"}.get(victim, victim)
    before = pids(cli, part)
    with Traffic(url) as traffic:
        until(lambda: len(traffic.answers) > 50)
        os.kill(before[0], signal.SIGKILL)
        seen = len(traffic.answers)
        until(lambda: len(traffic.answers) > seen + 100)
        until(
            lambda: len(pids(cli, part)) == len(before) and before[0] not in pids(cli, part), what=f"{victim} is back"
        )
        until(lambda: set(tags) <= {a["bento"] for a in traffic.answers[-60:]}, what="both Bentos answer again")
    assert traffic.failed == []
    assert traffic.retried <= (3 if victim == "gateway" else 0)
    status = cli("release", "status")
    assert status["champion"] == tags[0]


def test_a_database_that_cannot_be_read_costs_no_request_and_break_glass_works(
    at_half: tuple[Cli, str, list[str]],
) -> None:
    cli, url, tags = at_half
    database = cli.home / "control" / "control.db"
    kept = sorted(database.parent.glob("control.db*"))
    with Traffic(url) as traffic:
        until(lambda: len(traffic.answers) > 30)
        for path in kept:
            path.rename(path.with_name(f"kept-{path.name}"))
        database.write_bytes(b"not a database" * 300)
        cli("release", "status", code=5)
        seen = len(traffic.answers)
        until(lambda: len(traffic.answers) > seen + 60)
        cli("release", "rollback", "--break-glass", "--reason", "a test")
        until(lambda: {a["bento"] for a in traffic.answers[-30:]} == {tags[0]}, 20, "everyone on the champion")
        for path in kept:
            path.with_name(f"kept-{path.name}").replace(path)
        until(lambda: cli.release().get("state") == "rolled_back", 60, "the order is adopted")
    assert traffic.failed == []
    assert cli("release", "status")["champion"] == tags[0]
    assert cli("release", "history", "--verify")["verified"] is True


def test_what_cannot_be_done_is_refused_with_the_reason(stack: tuple[Cli, str, list[str]]) -> None:
    cli, url, _ = stack

    def refused(code: int, *words: str) -> str:
        done = cli.run(*words)
        assert done.returncode == code, (words, done.stderr)
        assert "Traceback" not in done.stderr
        return done.stderr

    before: dict[str, Any] = cli("release", "status")
    assert "next:" in refused(4, "release", "start", "streamrec:nosuchtag")
    assert refused(4, "release", "start", "streamrec:latest", "--policy", "nosuch")
    (cli.home / "policies" / "odd.toml").write_text(POLICY.read_text() + "\nnonsense = 1\n")
    try:
        assert "nonsense" in cli.run("release", "start", "streamrec:latest", "--policy", "odd").stderr
    finally:
        (cli.home / "policies" / "odd.toml").unlink()
    assert refused(3, "release", "rollback")
    assert refused(2, "release", "start")
    big = {"user_id": "u1", "context": {"country": "x" * (1 << 20)}}
    assert httpx.post(f"{url}/v1/recommendations", json=big).status_code in (400, 413)
    after = cli("release", "status")
    assert (after["champion"], len(after["releases"])) == (before["champion"], len(before["releases"]))
