"""What every control store owes, and what the SQL one owes when processes meet or die."""

import os
import random
import sqlite3
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from contracts.errors import NotFound, Refused, Unreachable
from contracts.routing import Target
from contracts.settings import Settings
from registry.access import Forbidden, authorise, create_token, revoke_token
from registry.control.memory import MemoryStore
from registry.control.sql import SqlStore, control_store, exists
from registry.control.store import Actor, Conflict, ControlStore
from registry.releases.values import ControlState

ROOT = Path(__file__).resolve().parents[3]
ME = Actor("token:me", "admin")
NOW = 1_800_000_000_000_000


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ControlStore:
    return MemoryStore() if request.param == "memory" else SqlStore(f"sqlite:///{tmp_path / 'control' / 'control.db'}")


def put(store: ControlStore, before: ControlState, bento: str, **more: object) -> ControlState:
    after = before.model_copy(update={"champion": Target(bento=bento)})
    return store.commit(before, after, actor=ME, action="test", subject=bento, detail={"n": 1}, now_us=NOW, **more)  # type: ignore[arg-type]


def test_a_new_store_holds_nothing(store: ControlStore) -> None:
    assert store.load() == ControlState()
    assert (store.releases(), store.history(), store.tokens(), list(store.verify())) == ([], [], [], [])


def test_a_commit_moves_the_state_by_one_version(store: ControlStore) -> None:
    first = put(store, store.load(), "streamrec:a")
    assert (first.version, store.load()) == (1, first)
    second = put(store, first, "streamrec:b")
    assert store.load() == second
    assert second.version == 2


def test_a_commit_on_a_stale_state_is_a_conflict_and_leaves_no_trace(store: ControlStore) -> None:
    stale = store.load()
    held = put(store, stale, "streamrec:a")
    with pytest.raises(Conflict):
        put(store, stale, "streamrec:b")
    with pytest.raises(Conflict):
        put(store, held.model_copy(update={"version": 7}), "streamrec:b")
    assert store.load() == held
    assert len(store.history()) == 1


def test_one_holder_has_the_lease_until_it_runs_out(store: ControlStore) -> None:
    a = store.acquire("a", 5, NOW)
    assert a is not None
    assert a.epoch == 1
    assert store.acquire("b", 5, NOW + 1_000_000) is None
    renewed = store.acquire("a", 5, NOW + 2_000_000)
    assert renewed is not None
    assert (renewed.epoch, renewed.until_us) == (1, NOW + 7_000_000)
    b = store.acquire("b", 5, NOW + 7_000_000)
    assert b is not None
    assert b.epoch == 2
    with pytest.raises(Conflict):
        put(store, store.load(), "streamrec:a", lease=renewed)
    assert put(store, store.load(), "streamrec:b", lease=b).version == 1


def test_a_lease_that_is_given_back_can_be_had_at_once(store: ControlStore) -> None:
    a = store.acquire("a", 5, NOW)
    assert a is not None
    store.release_lease(a)
    b = store.acquire("b", 5, NOW)
    assert b is not None
    assert b.epoch == 2
    store.release_lease(a)  # of an old one: nothing happens
    assert store.acquire("c", 5, NOW + 1) is None


def test_a_clock_that_jumps_back_does_not_keep_a_dead_holder_s_lease(store: ControlStore) -> None:
    assert store.acquire("a", 5, NOW)
    back = NOW - 3_600_000_000
    assert store.acquire("b", 5, back) is None
    assert store.acquire("b", 5, back + 3_000_000) is None
    b = store.acquire("b", 5, back + 5_000_000)
    assert b is not None
    assert b.epoch == 2


def test_the_audit_is_a_chain_and_can_be_asked_by_subject(store: ControlStore) -> None:
    put(store, store.load(), "streamrec:a")
    store.note(ME, "refused", "r-1", {"reason": "no"}, NOW)
    entries = store.history()
    assert [e.number for e in entries] == [1, 2]
    assert entries[1].previous == entries[0].digest
    assert [e.action for e in store.history("r-1")] == ["refused"]
    assert [e.number for e in store.history(limit=1)] == [2]
    assert list(store.verify()) == []


def test_a_detail_without_bounds_is_cut_and_says_so(store: ControlStore) -> None:
    entry = store.note(ME, "note", "x", {"reason": "kept", "evidence": "y" * 1_000_000}, NOW)
    assert entry.detail["reason"] == "kept"
    assert entry.detail["cut"]["characters"] > 1_000_000
    assert list(store.verify()) == []


def test_tokens_have_roles_that_are_enforced_and_refusals_are_audited(store: ControlStore) -> None:
    def may(token: str | None, needs: str) -> Actor:
        return authorise(store, token, needs, action="release.start", subject="r", now_us=NOW)  # type: ignore[arg-type]

    assert may(None, "admin").name.startswith("local:")
    with pytest.raises(Refused, match="the first token is an admin's"):
        create_token(store, ME, "v", "viewer", NOW)
    admin = create_token(store, ME, "root", "admin", NOW)
    viewer = create_token(store, ME, "eve", "viewer", NOW + 1)
    assert may(admin, "releaser") == Actor("token:root", "admin")
    assert may(viewer, "viewer").name == "token:eve"
    for token in (None, "", "srt_wrong", viewer, admin[:-1]):
        with pytest.raises(Forbidden):
            may(token, "releaser")
    assert [e.action for e in store.history()].count("refused") == 5
    with pytest.raises(Conflict):
        create_token(store, ME, "eve", "admin", NOW)
    with pytest.raises(Refused, match="last admin"):
        revoke_token(store, ME, "root", NOW)
    revoke_token(store, ME, "eve", NOW + 2)
    with pytest.raises(Forbidden, match="unknown or was revoked"):
        may(viewer, "viewer")
    with pytest.raises(NotFound):
        revoke_token(store, ME, "eve", NOW)
    text = repr([store.tokens(), store.history()])
    assert admin not in text
    assert viewer not in text


# --- SQLite ----------------------------------------------------------------------------------------------------------


def sql(tmp_path: Path) -> tuple[SqlStore, Path]:
    path = tmp_path / "control" / "control.db"
    return SqlStore(f"sqlite:///{path}"), path


def test_the_database_is_the_owner_s_alone_and_asking_makes_none(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    assert not exists(settings)
    store = control_store(settings)
    assert not exists(settings)
    store.load()
    assert exists(settings)
    path = tmp_path / "control" / "control.db"
    assert (path.stat().st_mode & 0o777, path.parent.stat().st_mode & 0o777) == (0o600, 0o700)


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ("UPDATE audit SET actor = 'someone' WHERE number = 2", "entry 2"),
        ("UPDATE audit SET detail = '{}' WHERE number = 3", "entry 3"),
        ("DELETE FROM audit WHERE number = 2", "entry 2 is missing"),
        ("DELETE FROM audit WHERE number = 4", "the last entry is 3, 4 have been written"),
        ("UPDATE audit SET number = number + 10 WHERE number = 4", "entry 4 is missing"),
    ],
)
def test_what_was_done_to_the_audit_is_found(tmp_path: Path, change: str, found: str) -> None:
    store, path = sql(tmp_path)
    for n in range(4):
        store.note(ME, "note", f"s{n}", {"n": n}, NOW + n)
    assert list(store.verify()) == []
    with sqlite3.connect(path) as connection:
        connection.execute(change)
    assert found in " ".join(store.verify())


def test_a_file_that_is_no_database_is_told_and_the_right_one_is_opened_again(tmp_path: Path) -> None:
    store, path = sql(tmp_path)
    state = put(store, store.load(), "streamrec:a")
    kept = path.with_name("kept")
    path.rename(kept)
    path.write_bytes(b"not a database" * 1000)
    for ask in (store.load, store.history, lambda: store.acquire("a", 5, NOW)):
        with pytest.raises(Unreachable, match=r"control\.db does not answer"):
            ask()
    kept.replace(path)
    assert store.load() == state


def test_a_database_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    store, path = sql(tmp_path)
    store.load()
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE about SET schema = 99")
    with pytest.raises(Refused, match="schema 99"):
        SqlStore(f"sqlite:///{path}").load()


def test_a_writer_that_holds_the_lock_too_long_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("registry.control.sql.BUSY_S", 0.1)
    store, path = sql(tmp_path)
    store.load()
    with sqlite3.connect(path, isolation_level=None) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(Unreachable, match="locked"):
            store.note(ME, "note", "x", {}, NOW)


WRITER = """
import sys
from contracts.routing import Target
from registry.control.sql import SqlStore
from registry.control.store import Actor, Conflict
store, name, times = SqlStore(sys.argv[1]), sys.argv[2], int(sys.argv[3])
done = 0
while done < times:
    before = store.load()
    after = before.model_copy(update={"seen_us": before.seen_us + 1, "champion": Target(bento=name)})
    try:
        who = Actor(name, "admin")
        store.commit(before, after, actor=who, action="count", subject=name, detail={"n": done}, now_us=1)
    except Conflict:
        continue
    done += 1
    print(done, flush=True)
"""


def writer(path: Path, name: str, times: int) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(WRITER), f"sqlite:///{path}", name, str(times)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )


def test_four_processes_lose_nothing(tmp_path: Path) -> None:
    store, path = sql(tmp_path)
    processes = [writer(path, f"w{n}", 25) for n in range(4)]  # they also race for the making of the schema
    for process in processes:
        process.communicate(timeout=120)
        assert process.returncode == 0
    state = store.load()
    assert (state.version, state.seen_us, len(store.history())) == (100, 100, 100)
    assert list(store.verify()) == []


def test_a_killed_writer_leaves_state_and_audit_in_step(tmp_path: Path) -> None:
    store, path = sql(tmp_path)
    store.load()
    rng = random.Random(7)  # noqa: S311
    for _ in range(5):
        before = store.load().version
        process = writer(path, "w", 10_000)
        assert process.stdout
        for _ in range(rng.randint(1, 8)):
            process.stdout.readline()
        until = time.monotonic() + rng.random() * 0.01
        while time.monotonic() < until:  # somewhere within a commit
            pass
        os.kill(process.pid, 9)
        process.wait()
        process.stdout.close()
        state = store.load()
        assert state.version > before
        assert state.version == state.seen_us == len(store.history(limit=100_000))
        assert list(store.verify()) == []
