import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bentos.gateway.assignment import Assigner
from contracts.errors import ArtifactError, Refused
from contracts.routing import (
    BreakGlass,
    Consumer,
    ExperimentRoute,
    Flag,
    Holdout,
    Overrides,
    RoutingTable,
    Target,
    Upstream,
)
from contracts.rules import RulesDocument
from contracts.signing import Signer
from registry.keys import routing_signer
from registry.releases import machine
from registry.releases.policy import Metric, Policy, Step
from registry.releases.routing import MemoryWriter, RoutingWriter, compile_table, table_problems, write_order
from registry.releases.values import (
    Command,
    ControlState,
    Go,
    Pause,
    PolicyText,
    Promote,
    Release,
    Resume,
    Rollback,
    Start,
    Warm,
)

OLD, NEW = Target(bento="streamrec:old"), Target(bento="streamrec:new")
UP = {t.bento: Upstream(urls=(f"unix:/run/{t.bento[-3:]}",)) for t in (OLD, NEW)}
OTHER = Upstream(urls=("unix:/run/other",))
ERRORS = Metric(name="errors", kind="error_rate", direction="lower", critical=True, limit=0.01)
POLICY = Policy(
    name="p",
    version="1",
    unit="device",
    condition={"country": "DE"},
    metrics=(ERRORS,),
    steps=(
        Step(kind="shadow", weight=30, metrics=("errors",)),
        Step(kind="canary", weight=5, metrics=("errors",)),
        Step(kind="canary", weight=100, metrics=("errors",)),
    ),
)
TEXT = PolicyText(name="p", version="1", sha256="0" * 64, text="")
RULES = RulesDocument(version="loose")


def started(step: int = -1, **more: Any) -> ControlState:
    state = {-1: "created", 0: "shadow", 1: "canary", 2: "canary"}[step]
    values = {"id": "r-1", "candidate": NEW, "champion": OLD, "policy_text": TEXT, "policy": POLICY, "state": state}
    release = Release.model_validate(
        {**values, "step": step, "created_us": 1, "step_since_us": 1, "since_us": 1, **more}
    )
    return ControlState(champion=OLD, release=release)


def compiled(state: ControlState, ready: dict[str, Upstream] | None = None) -> RoutingTable:
    return compile_table(
        state, UP if ready is None else ready, epoch=3, version=7, written_at="now", gateway_processes=2
    )


def test_an_empty_state_is_a_table_without_a_champion() -> None:
    assert compiled(ControlState()) == RoutingTable(
        epoch=3, version=7, written_at="now", champion=None, gateway_processes=2
    )


def test_a_created_release_has_no_route() -> None:
    table = compiled(started())
    assert (table.champion, table.release) == (OLD, None)
    assert table.bentos == UP


@pytest.mark.parametrize(
    ("step", "weight", "shadow", "name"),
    [(0, 0, 30, "shadow 30 %"), (1, 5, 0, "canary 5 %"), (2, 100, 0, "canary 100 %")],
)
def test_a_step_is_a_weight_or_a_shadow_share(step: int, weight: float, shadow: float, name: str) -> None:
    route = compiled(started(step)).release
    assert route is not None
    assert (route.weight, route.shadow, route.step) == (weight, shadow, name)
    assert (route.id, route.candidate, route.unit, route.condition) == ("r-1", NEW, "device", {"country": "DE"})


def test_an_ab_step_keeps_its_split() -> None:
    uneven = POLICY.model_copy(update={"steps": (Step(kind="ab", weight=20, split=0.2, metrics=("errors",)),)})
    route = compiled(started(0, policy=uneven, state="ab")).release
    assert route is not None
    assert (route.weight, route.split, route.coverage) == (20, 0.2, 1.0)


def test_a_paused_release_keeps_what_its_step_gives_it() -> None:
    route = compiled(started(1, state="paused", paused_from="canary")).release
    assert route is not None
    assert route.weight == 5
    assert compiled(started(-1, state="paused", paused_from="created")).release is None


@pytest.mark.parametrize("state", ["promoted", "rolled_back", "superseded"])
def test_an_ended_release_has_no_route(state: str) -> None:
    assert compiled(started(1, state=state, ended_us=2)).release is None


@pytest.mark.parametrize("step", [0, 1, 2])
def test_a_candidate_that_is_not_ready_gets_nothing_and_is_named(step: int) -> None:
    ready = {OLD.bento: UP[OLD.bento]}
    route = compiled(started(step), ready).release
    assert route is not None
    assert (route.weight, route.shadow) == (0, 0)
    assert table_problems(started(step), ready) == (f"the candidate {NEW.bento} is not ready: it gets no request",)
    assert table_problems(started(step), UP) == ()


def test_a_champion_that_is_not_ready_stays_the_champion_without_an_address() -> None:
    table = compiled(started(1), {NEW.bento: UP[NEW.bento]})
    assert table.champion == OLD
    assert OLD.bento not in table.bentos
    assert table.release is not None
    assert table.release.weight == 5
    assert "last resort" in table_problems(started(1), {NEW.bento: UP[NEW.bento]})[0]


def test_after_a_promotion_the_table_knows_whom_to_go_back_to() -> None:
    state = ControlState(
        champion=NEW,
        previous=OLD.model_copy(update={"rules": RULES.digest}),
        warm=(Warm(target=OLD, until_us=99),),
        rules={RULES.digest: RULES},
    )
    table = compiled(state)
    assert table.previous == state.previous
    assert table.bentos == UP
    assert table.rules == {RULES.digest: RULES}


def test_bentos_that_nobody_should_reach_are_not_in_the_table() -> None:
    assert set(compiled(started(1), {**UP, "streamrec:retired": OTHER}).bentos) == {OLD.bento, NEW.bento}


def test_experiments_flags_holdouts_and_consumers_go_along() -> None:
    off = Overrides(sources_off=("graph",))
    parts: dict[str, Any] = {
        "experiments": (ExperimentRoute(id="e", treatment=off),),
        "flags": (Flag(id="f", on=off),),
        "holdouts": (Holdout(id="h", share=0.1),),
        "consumers": (Consumer(name="c", key_sha256="0" * 64),),
        "adopted": ("glass",),
    }
    table = compiled(ControlState(champion=OLD, **parts))
    assert {name: getattr(table, name) for name in parts} == parts


def test_experiments_by_different_units_cannot_share_a_layer_as_their_slots_would_part_nobody() -> None:
    off = Overrides(sources_off=("graph",))
    experiments = (
        ExperimentRoute(id="a", treatment=off, slot=(0, 0.5)),
        ExperimentRoute(id="b", treatment=off, slot=(0.5, 1), unit="session"),
        ExperimentRoute(id="c", treatment=off, unit="session", layer="other"),
    )
    state = ControlState(champion=OLD, experiments=experiments)
    assert [e.id for e in compiled(state).experiments] == ["a", "c"]
    assert table_problems(state, UP) == ("experiment b is by session, in a layer by user: it is left out",)


def test_what_does_not_fit_beside_the_release_is_left_out_and_named_and_holds_nothing_up() -> None:
    off, gone = Overrides(sources_off=("graph",)), Overrides(rules="gone@0123456789ab")
    state = started(1).model_copy(
        update={
            "experiments": (
                ExperimentRoute(id="r-1", treatment=off),
                ExperimentRoute(id="e", treatment=gone),
                ExperimentRoute(id="f", treatment=off),
            ),
            "flags": (Flag(id="f", on=off), Flag(id="g", on=gone), Flag(id="h", on=off)),
        }
    )
    table = compiled(state)
    assert ([e.id for e in table.experiments], [f.id for f in table.flags]) == (["f"], ["h"])
    assert table.release is not None
    assert table_problems(state, UP) == (
        "experiment r-1 has the name of another: it is left out",
        "experiment e names rules gone@0123456789ab, which are not there: it is left out",
        "flag f has the name of another: it is left out",
        "flag g names rules gone@0123456789ab, which are not there: it is left out",
    )


COMMANDS: st.SearchStrategy[Command] = st.sampled_from(
    [
        Start(id="r-1", candidate=NEW, policy_text=TEXT, policy=POLICY, supersede=True),
        Start(id="r-2", candidate=OLD, policy_text=TEXT, policy=POLICY, supersede=True),
        Start(id="r-3", candidate=Target(bento="streamrec:3"), policy_text=TEXT, policy=POLICY, supersede=True),
        Go(),
        Go(),
        Pause(),
        Resume(),
        Promote(force=True),
        Rollback(),
    ]
)


@settings(max_examples=150, deadline=None)
@given(
    commands=st.lists(COMMANDS, max_size=12),
    ready=st.sets(st.sampled_from([OLD.bento, NEW.bento, "streamrec:3"])),
    first=st.sampled_from([OLD, None]),
)
def test_each_state_that_commands_lead_to_is_a_table_without_traffic_for_who_is_not_ready(
    commands: list[Command], ready: set[str], first: Target | None
) -> None:
    state = ControlState(champion=first)
    for moment, command in enumerate(commands):
        try:
            state = machine.apply(state, command, moment)
        except Refused:
            continue
        table = compile_table(
            state, dict.fromkeys(ready, OTHER), epoch=1, version=moment, written_at="", gateway_processes=1
        )
        assert table.champion == state.champion
        assert set(table.bentos) <= ready
        assert RoutingTable.model_validate_json(table.model_dump_json()) == table
        assigner = Assigner(table)
        for user in range(20):
            assigned = assigner.assign(f"u{user}", {"country": "DE", "device_id": f"d{user}"})
            assert assigned.variant != "candidate" or assigned.target is not None
            if assigned.variant == "candidate":
                assert assigned.target is not None
                assert assigned.target.bento in ready
            else:
                assert assigned.target == state.champion


def order() -> BreakGlass:
    return BreakGlass(id="glass-1", champion=OLD, actor="kim", reason="it burns", written_at="now")


@pytest.fixture
def writer(tmp_path: Path) -> RoutingWriter:
    return RoutingWriter(tmp_path, routing_signer(tmp_path))


def test_what_is_written_is_read_back(writer: RoutingWriter) -> None:
    assert writer.last() is None
    assert writer.override() is None
    table = compiled(started(1))
    writer.write(table)
    writer.write_override(order())
    assert writer.last() == table
    assert writer.override() == order()
    writer.clear_override()
    writer.clear_override()
    assert writer.override() is None
    assert writer.last() == table


def test_a_table_that_is_not_ours_is_none_so_that_a_new_one_is_written(tmp_path: Path, writer: RoutingWriter) -> None:
    path = tmp_path / "control" / "routing.json"
    RoutingWriter(tmp_path, Signer.make()).write(compiled(started(1)))
    assert writer.last() is None
    for junk in (b"", b"\xff\x00", b"{}", b"[" * 100_000):
        path.write_bytes(junk)
        assert writer.last() is None


def test_an_order_that_is_not_ours_is_refused(tmp_path: Path, writer: RoutingWriter) -> None:
    write_order(tmp_path, Signer.make(), order())
    with pytest.raises(Refused, match="not that of our key"):
        writer.override()
    (tmp_path / "control" / "routing.override.json").write_text(routing_signer(tmp_path).seal("{}"))
    with pytest.raises(Refused, match="not an order"):
        writer.override()


def test_a_full_disk_leaves_the_old_table_and_no_rest(
    tmp_path: Path, writer: RoutingWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    table = compiled(started(1))
    writer.write(table)
    before = sorted(p.name for p in (tmp_path / "control").iterdir())
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space left"):
            writer.write(compiled(started(2)))
        with pytest.raises(ArtifactError, match="No space left"):
            write_order(tmp_path, routing_signer(tmp_path), order())
    assert writer.last() == table
    assert sorted(p.name for p in (tmp_path / "control").iterdir()) == before


def test_the_file_and_then_its_folder_are_synced(
    tmp_path: Path, writer: RoutingWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []
    real = os.fsync

    def watch(descriptor: int) -> None:
        synced.append(Path(os.readlink(f"/proc/self/fd/{descriptor}")).name)
        real(descriptor)

    monkeypatch.setattr(os, "fsync", watch)
    writer.write(compiled(started(1)))
    assert synced == [f".routing.json.{os.getpid()}", "control"]


LOOP = """
import sys
from pathlib import Path
from contracts.routing import RoutingTable
from registry.keys import routing_signer
from registry.releases.routing import RoutingWriter
home = Path(sys.argv[1])
writer, version = RoutingWriter(home, routing_signer(home)), 0
while True:
    version += 1
    writer.write(RoutingTable(epoch=1, version=version, written_at="x" * 20_000, champion=None))
    print(version, flush=True)
"""


def test_a_writer_that_is_killed_leaves_a_whole_table(tmp_path: Path) -> None:
    writer, seen = RoutingWriter(tmp_path, routing_signer(tmp_path)), 0
    for _ in range(3):
        process = subprocess.Popen([sys.executable, "-c", LOOP, str(tmp_path)], stdout=subprocess.PIPE)
        try:
            assert process.stdout is not None
            for _ in range(5):
                seen = int(process.stdout.readline())
        finally:
            process.send_signal(signal.SIGKILL)
            process.communicate()
        table = writer.last()
        assert table is not None
        assert table.version >= seen
        assert len(table.written_at) == 20_000


def test_the_writer_in_memory_does_as_the_real_one(writer: RoutingWriter) -> None:
    memory = MemoryWriter()
    for one in (writer, memory):
        assert (one.last(), one.override()) == (None, None)
        one.write(compiled(started(1)))
        one.write_override(order())
        assert (one.last(), one.override()) == (compiled(started(1)), order())
        one.clear_override()
        assert one.override() is None
