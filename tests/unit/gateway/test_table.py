"""The watcher against whatever may lie in `home/control`. It never raises, and the last good table goes on."""

import asyncio
import os
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bentos.gateway import table as module
from bentos.gateway.table import TableWatcher
from contracts.routing import OVERRIDE, PUBLIC_KEY, ROUTING, BreakGlass, Consumer, RoutingTable, Target
from contracts.signing import Signer
from tests.unit.gateway.routed import LOOSE, NEW, OLD, release, table


class Control:
    """A control folder, as the writer of the table has it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.signer = Signer.open(folder / "keys" / "routing.key", folder / PUBLIC_KEY)
        self.told: list[str | None] = []
        self.watcher = TableWatcher(folder, report=self.told.append)

    def put(self, what: RoutingTable | BreakGlass, signer: Signer | None = None) -> None:
        name = ROUTING if isinstance(what, RoutingTable) else OVERRIDE
        self.put_text(name, (signer or self.signer).seal(what.model_dump_json()))

    def put_text(self, name: str, text: str | bytes) -> None:
        part = self.folder / f".{name}.part"
        part.write_bytes(text.encode() if isinstance(text, str) else text)
        part.replace(self.folder / name)

    @property
    def name(self) -> str | None:
        current = self.watcher.current()
        return current[1].name if current else None

    @property
    def problem(self) -> str:
        return self.watcher.problem or ""


@pytest.fixture
def control(tmp_path: Path) -> Control:
    return Control(tmp_path)


@pytest.fixture
def running(control: Control) -> Control:
    """With table 1.1 in force."""
    control.put(table(release=release(weight=5)))
    assert control.watcher.poll()
    assert (control.name, control.problem) == ("1.1", "")
    return control


def order(id_: str = "glass-1", champion: Target = OLD) -> BreakGlass:
    return BreakGlass(id=id_, champion=champion, actor="kim", reason="it burns", written_at="")


def test_a_table_and_its_assigner_are_swapped_together(running: Control) -> None:
    before = running.watcher.current()
    running.put(table(version=2, champion=NEW))
    assert running.watcher.poll()
    after = running.watcher.current()
    assert before is not None
    assert after is not None
    assert before[1].champion == OLD  # what a request under way holds does not change
    assert before[0].assign("u", {}).target in (OLD, NEW)
    assert after[0].assign("u", {}).target == after[1].champion == NEW


def test_nothing_is_read_again_while_the_files_are_as_before(running: Control, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_read", None)
    assert not running.watcher.poll()
    assert running.problem == ""


def test_the_same_table_written_again_is_no_change(running: Control) -> None:
    running.put(table(release=release(weight=5)))
    assert not running.watcher.poll()
    assert (running.problem, running.watcher.counts.accepted) == ("", 1)


def test_without_any_file_there_is_no_table_and_a_reason(control: Control) -> None:
    assert not control.watcher.poll()
    assert control.watcher.current() is None
    assert "there is no" in control.problem
    assert ROUTING in control.problem


def test_without_a_key_no_table_is_believed_until_there_is_one(control: Control) -> None:
    key = control.folder / PUBLIC_KEY
    kept = key.read_bytes()
    key.unlink()
    control.put(table())
    assert not control.watcher.poll()
    assert "there is no key" in control.problem
    key.write_bytes(b"not a key")
    assert not control.watcher.poll()
    assert "not a public key" in control.problem
    key.write_bytes(kept)
    assert control.watcher.poll()
    assert (control.name, control.problem) == ("1.1", "")


def test_a_torn_file_is_refused_and_mended_by_the_next(running: Control) -> None:
    whole = running.signer.seal(table(version=2).model_dump_json())
    for size in (0, 1, len(whole) // 2, len(whole) - 1):
        running.put_text(ROUTING, whole[:size])
        assert not running.watcher.poll()
        assert running.name == "1.1"
        assert "table 1.1 goes on" in running.problem
    running.put_text(ROUTING, whole)
    assert running.watcher.poll()
    assert (running.name, running.problem) == ("1.2", "")
    assert running.watcher.counts.refused == 4
    assert running.told[-1] is None


def test_a_table_signed_by_another_key_is_refused(running: Control) -> None:
    running.put(table(version=2), Signer.make())
    assert not running.watcher.poll()
    assert running.name == "1.1"
    assert "not that of our key" in running.problem


def test_a_changed_table_under_an_old_signature_is_refused(running: Control) -> None:
    text = (running.folder / ROUTING).read_text()
    running.put_text(ROUTING, text.replace('\\"version\\":1', '\\"version\\":9'))
    assert not running.watcher.poll()
    assert "not that of our key" in running.problem


@pytest.mark.parametrize(("epoch", "version"), [(1, 4), (0, 9)])
def test_an_older_table_is_refused(control: Control, epoch: int, version: int) -> None:
    control.put(table(epoch=1, version=5))
    control.watcher.poll()
    control.put(table(epoch=epoch, version=version))
    assert not control.watcher.poll()
    assert control.name == "1.5"
    assert "is older" in control.problem


def test_another_table_of_the_same_version_is_refused(running: Control) -> None:
    running.put(table(champion=NEW))
    assert not running.watcher.poll()
    assert "another table of the same version" in running.problem


def test_a_greater_epoch_wins_over_a_greater_version(control: Control) -> None:
    control.put(table(epoch=1, version=99))
    control.watcher.poll()
    control.put(table(epoch=2, version=1))
    assert control.watcher.poll()
    assert control.name == "2.1"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ('"schema_version":2', "schema_version"),
        ('"champion":{"bento":""}', "champion.bento"),
        ('"epoch":-1', "epoch"),
        ('"unknown":1', "unknown"),
        ('"release":{"id":"r","step":"s","candidate":{"bento":"b"},"weight":60}', "release"),
        ('"release":{"id":"r","step":"s","candidate":{"bento":"gone"},"weight":5}', "not ready"),
        ('"flags":[{"id":"f","on":{},"condition":{"a":{"$like":"b"}}}]', "unknown operator"),
        ('"rules":{"x@1":{"version":"x"}}', "another digest"),
    ],
)
def test_a_signed_table_that_does_not_validate_is_refused_by_name_of_the_field(
    running: Control, change: str, words: str
) -> None:
    text = '{"epoch":1,"version":2,"written_at":"","champion":null,' + change + "}"
    running.put_text(ROUTING, running.signer.seal(text))
    assert not running.watcher.poll()
    assert running.name == "1.1"
    assert words in running.problem


def test_another_signed_document_is_no_table_and_no_order(running: Control) -> None:
    running.put_text(ROUTING, running.signer.seal(order().model_dump_json()))
    running.put_text(OVERRIDE, running.signer.seal(table(version=2).model_dump_json()))
    assert not running.watcher.poll()
    assert running.name == "1.1"
    assert running.problem.count("not valid") == 2


def test_files_that_vanish_leave_the_last_table(running: Control) -> None:
    shutil.rmtree(running.folder)
    assert not running.watcher.poll()
    assert running.name == "1.1"
    assert "table 1.1 goes on" in running.problem
    assert running.watcher.counts.unreadable == 1


def test_a_folder_or_a_pipe_in_place_of_a_file_is_refused(running: Control) -> None:
    (running.folder / ROUTING).unlink()
    (running.folder / ROUTING).mkdir()
    assert not running.watcher.poll()
    assert "not a file" in running.problem
    (running.folder / ROUTING).rmdir()
    os.mkfifo(running.folder / ROUTING)
    assert not running.watcher.poll()
    assert "not a file" in running.problem
    assert running.name == "1.1"


@pytest.mark.parametrize("name", [ROUTING, OVERRIDE])
def test_a_failing_disk_is_asked_again_though_the_file_is_as_before(
    running: Control, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    read = module._read

    def fails(path: Path, *rest: Any) -> Any:
        if path.name == name:
            raise OSError(5, "Input/output error")
        return read(path, *rest)

    running.put(table(version=2))
    running.put(order(champion=NEW))
    with monkeypatch.context() as patch:
        patch.setattr(module, "_read", fails)
        running.watcher.poll()
        assert "Input/output error" in running.problem
    assert running.watcher.poll()
    current = running.watcher.current()
    assert current is not None
    assert (current[1].name, current[1].champion) == ("1.2", NEW)
    assert "Input/output error" not in running.problem


def test_a_fault_of_our_own_is_reported_and_not_raised(running: Control, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise RecursionError("too deep")

    running.put(table(version=2))
    monkeypatch.setattr(module, "_read", fails)
    assert not running.watcher.poll()
    assert "RecursionError" in running.problem
    assert running.name == "1.1"


def test_a_table_of_1_mb_is_taken(control: Control) -> None:
    """A thousand consumers, and an upstream of many addresses."""
    consumers = tuple(Consumer(name=f"c{i}", key_sha256=f"{i:064x}") for i in range(1000))
    urls = tuple(f"http://{'h' * 3800}-{i}:3000" for i in range(256))
    big = table(consumers=consumers, bentos={OLD.bento: {"urls": urls}})
    control.put(big)
    assert (control.folder / ROUTING).stat().st_size > 1_000_000
    began = time.process_time()
    assert control.watcher.poll()
    assert time.process_time() - began < 1.0
    assert control.watcher.current() is not None


def test_junk_of_1_mb_and_what_is_over_the_limit_are_refused(running: Control, monkeypatch: pytest.MonkeyPatch) -> None:
    running.put_text(ROUTING, os.urandom(1 << 20))
    assert not running.watcher.poll()
    running.put_text(ROUTING, b"[" * (1 << 20))
    assert not running.watcher.poll()
    monkeypatch.setattr(module, "MAX_BYTES", 1 << 20)
    running.put_text(ROUTING, b"x" * ((1 << 20) + 1))
    assert not running.watcher.poll()
    assert "longer than 1 MiB" in running.problem
    assert running.name == "1.1"


def test_an_order_holds_at_once_over_a_release_at_100(control: Control) -> None:
    control.put(table(release=release(weight=100)))
    control.watcher.poll()
    control.put(order())
    assert control.watcher.poll()
    current = control.watcher.current()
    assert current is not None
    assert (current[1].champion, current[1].release) == (OLD, None)
    assert current[0].assign("u", {}).target == OLD
    assert "break-glass order glass-1 by kim holds: it burns" in control.problem


def test_an_order_holds_over_new_tables_until_one_has_adopted_it(running: Control) -> None:
    running.put(order())
    running.watcher.poll()
    running.put(table(version=2, champion=NEW, release=release(weight=5, candidate=OLD)))
    assert running.watcher.poll()
    current = running.watcher.current()
    assert current is not None
    assert (current[1].name, current[1].champion, current[1].release) == ("1.2", OLD, None)
    running.put(table(version=3, champion=NEW, adopted=("glass-1",)))
    assert running.watcher.poll()
    current = running.watcher.current()
    assert current is not None
    assert (current[1].champion, running.problem) == (NEW, "")


def test_an_order_that_is_taken_away_holds_no_longer(running: Control) -> None:
    running.put(order(champion=NEW))
    running.watcher.poll()
    (running.folder / OVERRIDE).unlink()
    assert running.watcher.poll()
    current = running.watcher.current()
    assert current is not None
    assert current[1].release is not None
    assert running.problem == ""


def test_an_order_holds_also_while_the_table_is_gone_or_bad(running: Control) -> None:
    running.put_text(ROUTING, "torn")
    running.put(order(champion=NEW))
    assert running.watcher.poll()
    current = running.watcher.current()
    assert current is not None
    assert current[1].champion == NEW
    assert "goes on" in running.problem
    assert "holds: it burns" in running.problem


def test_an_order_that_turns_bad_still_holds(running: Control) -> None:
    running.put(order(champion=NEW))
    running.watcher.poll()
    running.put(order("glass-2", OLD), Signer.make())
    assert not running.watcher.poll()
    current = running.watcher.current()
    assert current is not None
    assert current[1].champion == NEW
    assert "not that of our key" in running.problem


def test_a_forged_order_changes_nothing(running: Control) -> None:
    running.put(order(champion=NEW), Signer.make())
    assert not running.watcher.poll()
    assert running.name == "1.1"
    assert OVERRIDE in running.problem


def test_an_order_whose_rules_the_table_lacks_goes_by_the_bentos_own(running: Control) -> None:
    running.put(table(version=2, rules={}))
    running.put(order(champion=OLD.model_copy(update={"rules": LOOSE.digest})))
    running.watcher.poll()
    current = running.watcher.current()
    assert current is not None
    assert current[1].champion == OLD
    assert "without its rules" in running.problem


def test_the_first_key_holds_until_the_process_ends(running: Control) -> None:
    thief = Signer.open(running.folder / "other.key", running.folder / PUBLIC_KEY)
    running.put(table(version=2, champion=NEW), thief)
    assert not running.watcher.poll()
    assert running.name == "1.1"
    assert "another key: it holds after a restart" in running.problem
    running.put(table(version=3))
    assert running.watcher.poll()
    assert running.name == "1.3"
    assert Control(running.folder).watcher.verifier is None  # a new process decides anew


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    name=st.sampled_from((ROUTING, OVERRIDE, PUBLIC_KEY)),
    junk=st.one_of(
        st.binary(max_size=200),
        st.builds(
            lambda p, s: f'{{"payload":"{p}","signature":"{s}"}}'.encode(),
            st.text("{}[]1a", max_size=9),
            st.text("A=", max_size=9),
        ),
    ),
    signed=st.booleans(),
)
def test_arbitrary_bytes_raise_nothing_and_the_last_table_goes_on(
    running: Control, name: str, junk: bytes, signed: bool
) -> None:
    before = running.watcher.current()
    text = running.signer.seal(junk.decode("latin-1")).encode() if signed else junk
    kept = (running.folder / PUBLIC_KEY).read_bytes()
    running.put_text(name, text)
    assert not running.watcher.poll()
    assert running.watcher.current() is before
    assert running.problem
    (running.folder / OVERRIDE).unlink(missing_ok=True)
    running.put_text(PUBLIC_KEY, kept)
    running.put(table(release=release(weight=5)))
    assert not running.watcher.poll()
    assert running.problem == ""


def test_the_task_takes_a_new_table_by_itself_and_ends_when_cancelled(control: Control) -> None:
    async def scene() -> None:
        watcher = TableWatcher(control.folder, every_s=0.005)
        task = asyncio.create_task(watcher.run())

        async def until(version: int) -> None:
            while (current := watcher.current()) is None or current[1].version != version:
                await asyncio.sleep(0.002)

        for version in (1, 2, 3):
            control.put(table(version=version))
            await asyncio.wait_for(until(version), 5)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(scene())
