"""The control database lost, damaged, full or meddled with: told with the next command, and whole when it is back."""

import os
import random
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from contracts.errors import Refused, StreamRecError, Unreachable
from contracts.routing import ROUTING, Target
from registry.access import Forbidden, authorise, create_token
from registry.control.memory import MemoryStore
from registry.control.sql import SqlStore
from registry.control.store import Actor, Conflict, ControlStore, TokenRecord

ROOT = Path(__file__).resolve().parents[3]
ME = Actor("token:me", "admin")
NOW = 1_800_000_000_000_000


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ControlStore:
    return MemoryStore() if request.param == "memory" else SqlStore(f"sqlite:///{tmp_path / 'control' / 'control.db'}")


def used(tmp_path: Path) -> tuple[SqlStore, Path]:
    """A database with five transitions behind it."""
    path = tmp_path / "control" / "control.db"
    store = SqlStore(f"sqlite:///{path}")
    for n in range(5):
        put(store, f"streamrec:{n}")
    return store, path


def put(store: ControlStore, bento: str) -> None:
    before = store.load()
    after = before.model_copy(update={"champion": Target(bento=bento)})
    store.commit(before, after, actor=ME, action="test", subject=bento, detail={"bento": bento}, now_us=NOW)


def meddle(path: Path, *statements: str) -> None:
    connection = sqlite3.connect(path)
    for statement in statements:
        connection.execute(statement)
    connection.commit()
    connection.close()


def asks(store: ControlStore) -> list[Callable[[], object]]:
    return [
        store.load,
        store.history,
        store.verify,
        store.tokens,
        store.releases,
        lambda: store.acquire("a", 5, NOW),
        lambda: store.note(ME, "note", "x", {}, NOW),
        lambda: put(store, "streamrec:next"),
    ]


def garbage_pages(path: Path) -> None:
    kept = path.read_bytes()
    path.write_bytes(kept[:4096] + random.Random(1).randbytes(len(kept) - 4096))  # noqa: S311


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


DAMAGE: dict[str, Callable[[Path], object]] = {
    "gone": lambda path: path.unlink(),
    "empty": lambda path: path.write_bytes(b""),
    "zeros": lambda path: path.write_bytes(bytes(path.stat().st_size)),
    "half": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "garbage pages": garbage_pages,
    "a folder": folder,
    "another database": lambda path: meddle(path, "DROP TABLE head", "DROP TABLE state", "DROP TABLE audit"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_database_is_told_and_works_again_when_it_is_back(tmp_path: Path, kind: str) -> None:
    store, path = used(tmp_path)
    state, kept = store.load(), path.read_bytes()
    DAMAGE[kind](path)
    for ask in (store.load, store.verify, lambda: put(store, "streamrec:lost")):
        with pytest.raises(Unreachable) as told:
            ask()
        assert "break-glass" in (told.value.next_command or "")
    if path.is_dir():
        path.rmdir()
    path.write_bytes(kept)
    assert store.load() == state
    put(store, "streamrec:after")
    assert list(store.verify()) == []


@pytest.mark.parametrize("kind", ["gone", "empty"])
def test_a_lost_database_is_not_begun_anew_after_a_restart_either(tmp_path: Path, kind: str) -> None:
    _, path = used(tmp_path)
    table = path.with_name(ROUTING)
    table.write_text("{}")  # the controller has written one
    DAMAGE[kind](path)
    started = SqlStore(f"sqlite:///{path}")
    for ask in asks(started):
        with pytest.raises(Unreachable, match="gone or empty"):
            ask()
    assert path.exists() == (kind == "empty")
    table.unlink()  # what the message says to do
    assert started.load().champion is None


def test_flipped_bytes_end_in_no_other_error_than_ours(tmp_path: Path) -> None:
    store, path = used(tmp_path)
    kept, rng = path.read_bytes(), random.Random(11)  # noqa: S311
    for _ in range(40):
        broken = bytearray(kept)
        for _ in range(rng.randint(1, 30)):
            broken[rng.randrange(len(broken))] = rng.randrange(256)
        path.write_bytes(broken)
        for ask in asks(store):
            try:
                ask()
            except StreamRecError as told:
                assert told.message  # noqa: PT017
    path.write_bytes(kept)
    assert list(store.verify()) == []


FULL = """
import resource, sys
from registry.control.sql import SqlStore
from registry.control.store import Actor
from contracts.errors import Unreachable
store = SqlStore(sys.argv[1])
store.load()
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), -1))
for n in range(1000):
    try:
        before = store.load()
        store.commit(before, before.model_copy(update={"seen_us": n}), actor=Actor("me", "admin"), action="fill",
                     subject="x", detail={"n": "x" * 3000}, now_us=n)
    except Unreachable as error:
        print(n, error.message)
        break
"""


def test_a_full_disk_is_told_and_tears_nothing(tmp_path: Path) -> None:
    store, path = used(tmp_path)
    limit = str(path.stat().st_size + 30_000)
    argv = [sys.executable, "-c", FULL, f"sqlite:///{path}", limit]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    count, _, message = done.stdout.partition(" ")
    assert "does not answer" in message
    assert store.load().version == 5 + int(count) == len(store.history())
    assert list(store.verify()) == []
    put(store, "streamrec:after")


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ("UPDATE audit SET detail = '{' WHERE number = 2", "entry 2 (test by token:me) has been changed"),
        ("UPDATE audit SET detail = x'ff00' WHERE number = 2", "entry 2 (test by token:me) has been changed"),
        ("UPDATE audit SET at_us = 'noon' WHERE number = 2", "entry 2 (test by token:me) has been changed"),
        ("UPDATE audit SET subject = 'streamrec:9' WHERE number = 5", "entry 5 (test by token:me) has been changed"),
        ("UPDATE audit SET number = -number WHERE number IN (2, 3)", "entry 1 is missing"),
        ("INSERT INTO audit SELECT 6, at_us, actor, action, subject, detail, previous, digest FROM audit LIMIT 1",
         "entry 6 does not follow entry 5"),
        ("DELETE FROM audit", "the last entry is 0, 5 have been written"),
        ("DELETE FROM head", "the last entry is 5, 0 have been written"),
        ("UPDATE state SET document = replace(document, 'streamrec:4', 'streamrec:0')",
         "the state is not the one that entry 5 left"),
        ("UPDATE state SET version = 6", "the state is not the one that entry 5 left"),
        ("DELETE FROM state", "the state is not the one that entry 5 left"),
    ],
)  # fmt: skip
def test_what_was_meddled_with_is_found(tmp_path: Path, change: str, found: str) -> None:
    store, path = used(tmp_path)
    assert list(store.verify()) == []
    meddle(path, change)
    assert found in " | ".join(store.verify())


def test_two_entries_that_changed_places_are_found(tmp_path: Path) -> None:
    store, path = used(tmp_path)
    meddle(
        path,
        "UPDATE audit SET number = CASE number WHEN 2 THEN 1003 ELSE 1002 END WHERE number IN (2, 3)",
        "UPDATE audit SET number = number - 1000 WHERE number > 1000",
    )
    assert "entry 2 does not follow entry 1" in store.verify()


def test_an_end_that_was_cut_with_its_head_set_back_shows_only_in_the_state(tmp_path: Path) -> None:
    # What the chain alone cannot find, as audit.py says; here the state still tells.
    store, path = used(tmp_path)
    meddle(
        path,
        "DELETE FROM audit WHERE number = 5",
        "UPDATE head SET number = 4, digest = (SELECT digest FROM audit WHERE number = 4)",
    )
    assert [line.split(":")[0] for line in store.verify()] == ["the state is not the one that entry 4 left"]


def test_an_entry_takes_numbers_without_end_and_odd_bytes(store: ControlStore) -> None:
    detail = {"ci": [float("-inf"), float("inf")], "p": float("nan"), "reason": "odd \udcff byte"}
    entry = store.note(Actor("a\udcff", "admin"), "note" * 100, "s" * 10_000 + "\udcff", detail, NOW)
    assert entry.detail["ci"] == ["-inf", "inf"]
    assert (entry.detail["p"], entry.detail["reason"]) == ("nan", "odd ? byte")
    assert (len(entry.subject), len(entry.action)) == (256, 64)
    assert store.history()[0] == entry
    assert list(store.verify()) == []


@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings")
def test_a_state_that_could_not_be_read_again_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    store, _ = used(tmp_path)
    before = store.load()
    for odd in ({"seen_us": "noon"}, {"adopted": ("\udcff",)}):
        with pytest.raises(Refused, match="could not be stored"):
            store.commit(
                before, before.model_copy(update=odd), actor=ME, action="t", subject="x", detail={}, now_us=NOW
            )
    assert (store.load(), len(store.history())) == (before, 5)


def test_two_who_revoke_one_another_leave_one_admin(store: ControlStore) -> None:
    create_token(store, ME, "a", "admin", NOW)
    create_token(store, ME, "b", "admin", NOW + 1)
    create_token(store, ME, "v", "viewer", NOW + 2)
    a, b, _ = store.tokens()  # both have read, and then both write

    def gone(t: TokenRecord) -> TokenRecord:
        return TokenRecord(t.name, t.role, t.sha256, t.created_us, t.created_by, NOW + 9)

    store.save_token(gone(a), ME, NOW)
    with pytest.raises(Refused, match="b is the last admin"):
        store.save_token(gone(b), ME, NOW)
    with pytest.raises(Conflict):
        create_token(store, ME, "b", "admin", NOW)


def test_after_the_last_token_the_local_user_is_admin_again(store: ControlStore) -> None:
    create_token(store, ME, "a", "admin", NOW)
    (a,) = store.tokens()
    store.save_token(TokenRecord(a.name, a.role, a.sha256, a.created_us, a.created_by, NOW), ME, NOW)
    actor = authorise(store, None, "admin", action="x", subject="y", now_us=NOW)
    assert actor.name.startswith("local:")


def test_any_token_text_is_refused_with_an_entry_of_bounded_size(store: ControlStore) -> None:
    create_token(store, ME, "a", "admin", NOW)
    for token in ("\udcff", "é", "\0", "x" * 100_000, "srt_"):
        with pytest.raises(Forbidden):
            authorise(store, token, "viewer", action="a" * 1000, subject="s" * 100_000, now_us=NOW)
    last = store.history()[-1]
    assert (last.action, len(last.subject), len(store.history())) == ("refused", 256, 6)
    assert "srt_" not in repr(store.history())


def test_a_copy_of_the_database_is_whole_by_itself(tmp_path: Path) -> None:
    store, path = used(tmp_path)
    copy = tmp_path / "copy.db"
    shutil.copy(path, copy)
    assert sorted(os.listdir(path.parent)) == ["control.db"]  # no second file that belongs to it
    assert SqlStore(f"sqlite:///{copy}").load() == store.load()
