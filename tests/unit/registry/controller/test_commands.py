"""The operations behind the release commands, on a control state in memory and a home without models."""

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from contracts.checklist import CHECKLIST
from contracts.errors import NotFound, Refused, Unreachable
from contracts.evidence import Check, Evidence
from contracts.rules import RulesDocument
from contracts.settings import Settings
from registry.artifacts import KINDS, Kind
from registry.control.memory import MemoryStore
from registry.evidence import document
from registry.releases import commands, machine
from registry.releases.candidate import Documents, demand_evidence, missing, read_evidence
from registry.releases.result import Result
from registry.releases.values import Promote
from registry.retire import RETIRED, dependents, sweep
from tests.made_evidence import made_checks

NOW_US = 1_700_000_000_000_000
NO_RUNS: Mapping[Kind, str] = {}
POLICY = """
schema_version = 1
name = "{name}"
version = "1"
evidence = "{evidence}"
warm_hours = 1

[[metrics]]
name = "errors"
kind = "error_rate"
direction = "lower"
critical = true
limit = 0.01

[[steps]]
kind = "canary"
weight = 5
metrics = ["errors"]
"""


def bento(home: Path, version: str, models: tuple[str, ...] = (), day: int = 1) -> str:
    folder = home / "bentoml" / "bentos" / "streamrec" / version
    folder.mkdir(parents=True)
    document = {
        "name": "streamrec",
        "version": version,
        "creation_time": datetime(2026, 1, day, tzinfo=UTC).isoformat(),
        "models": [{"tag": tag} for tag in models],
    }
    (folder / "bento.yaml").write_text(yaml.safe_dump(document))
    (folder / "code.py").write_text("x" * 10_000)
    (folder.parent / "latest").write_text(version)
    for tag in models:
        model = home / "bentoml" / "models" / tag.replace(":", "/")
        model.mkdir(parents=True, exist_ok=True)
        (model / "weights").write_bytes(b"x" * 50_000)
        (model.parent / "latest").write_text(model.name)
    return f"streamrec:{version}"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "policies").mkdir()
    for name, evidence in (("free", "any"), ("strict", "required")):
        (tmp_path / "policies" / f"{name}.toml").write_text(POLICY.format(name=name, evidence=evidence))
    for n, version in enumerate(("a", "b", "c"), start=1):
        bento(tmp_path, version, (f"streamrec-retrieval:{version}", "streamrec-ranking:shared"), day=n)
    return tmp_path


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


def settings(home: Path, **more: Any) -> Settings:
    return Settings(home=home, **more)


def start(store: MemoryStore, home: Path, tag: str | None, now_us: int = NOW_US, **more: Any) -> Result:
    return commands.start(
        store, settings(home), None, tag=tag, policy=more.pop("policy", "free"), now_us=now_us, **more
    )


def champion(store: MemoryStore, home: Path, tag: str) -> None:
    start(store, home, tag)
    state = store.load()
    after = machine.apply(state, Promote(force=True), NOW_US)
    store.commit(state, after, actor=commands.Actor("t", "admin"), action="t", subject="t", detail={}, now_us=NOW_US)


def documents(*checks: Check, without: tuple[str, ...] = (), runs: Mapping[Kind, str] = NO_RUNS) -> Documents:
    """The whole checklist, `checks` in place of those of their names, and not those `without`. runs: other than `r`."""
    found: dict[Kind, Evidence | None] = {}
    for kind in KINDS:
        whole = document(
            kind,
            runs.get(kind, "r"),
            [*made_checks(kind), Check(name="lineage", verdict="pass", detail="known"), *checks],
        )
        kept = tuple(check for check in whole.checks if check.name not in without)
        found[kind] = whole.model_copy(update={"checks": kept})
    return found


PASS = Check(name="artifacts", verdict="pass", detail="fine")
FAIL = Check(name="metrics", verdict="fail", detail="below the baseline", command="streamrec evaluate")
UNKNOWN = Check(name="union", verdict="inconclusive", detail="not measured", command="streamrec evaluate --data DIR")


def test_a_start_freezes_the_policy_and_is_audited(store: MemoryStore, home: Path) -> None:
    result = start(store, home, "streamrec:a", hypothesis="better", reason="monday")
    assert result.changed
    assert result.release is not None
    assert result.release.candidate.bento == "streamrec:a"
    assert result.release.hypothesis == "better"
    entry = store.history()[-1]
    assert entry.action == "release.start"
    assert entry.subject == result.release.id
    assert entry.detail["reason"] == "monday"
    assert entry.detail["policy_sha256"] == result.release.policy_text.sha256
    assert "error_rate" in entry.detail["policy_text"]


def test_a_dry_run_says_what_would_be_and_changes_nothing(store: MemoryStore, home: Path) -> None:
    result = start(store, home, "streamrec:a", dry_run=True)
    assert not result.changed
    assert any("smoke test" in line for line in result.plan)
    assert store.load().release is None
    assert store.history() == []


def test_an_unknown_tag_is_not_found_with_the_next_command_and_audited_as_refused(
    store: MemoryStore, home: Path
) -> None:
    with pytest.raises(NotFound) as error:
        start(store, home, "streamrec:nowhere")
    assert error.value.next_command
    assert store.load().release is None
    assert store.history()[-1].action == "refused"


def test_with_the_static_driver_a_tag_must_be_in_the_settings(store: MemoryStore, home: Path) -> None:
    chosen = settings(home, driver="static", upstreams={"streamrec:x": ["http://127.0.0.1:1"]})
    with pytest.raises(NotFound, match="streamrec:x"):
        commands.start(store, chosen, None, tag="streamrec:a", policy="free", now_us=NOW_US)
    assert commands.start(store, chosen, None, tag="streamrec:x", policy="free", now_us=NOW_US).changed


def test_two_releases_at_once_are_refused_unless_one_takes_the_others_place(store: MemoryStore, home: Path) -> None:
    start(store, home, "streamrec:a")
    with pytest.raises(Refused):
        start(store, home, "streamrec:b", NOW_US + 1)
    assert start(store, home, "streamrec:b", NOW_US + 2, supersede=True).changed


def test_evidence_that_is_missing_or_failed_refuses_and_lists_every_command(store: MemoryStore, home: Path) -> None:
    with pytest.raises(Refused) as error:
        start(store, home, "streamrec:a", policy="strict", evidence=lambda *_: documents(PASS, FAIL, UNKNOWN))
    assert error.value.exit_code == 3
    listed = [line for line in error.value.message.splitlines() if "streamrec evaluate" in line]
    assert len(listed) == 2  # what is alike of all three models is said once
    assert all(", ".join(KINDS) in line for line in listed)
    assert "below the baseline" in error.value.message
    assert store.load().release is None
    with pytest.raises(Refused, match="no evidence at all"):
        start(store, home, "streamrec:a", policy="strict", evidence=lambda *_: dict.fromkeys(KINDS))
    with pytest.raises(Refused):  # a failed check is not a matter of anybody's word
        start(
            store, home, "streamrec:a", policy="strict", accept_inconclusive=True, evidence=lambda *_: documents(FAIL)
        )


def test_inconclusive_evidence_is_taken_only_on_someones_word_and_that_is_kept(store: MemoryStore, home: Path) -> None:
    def source(*_: Any) -> Documents:
        return documents(PASS, UNKNOWN)

    with pytest.raises(Refused, match="--accept-inconclusive"):
        start(store, home, "streamrec:a", policy="strict", evidence=source)
    start(store, home, "streamrec:a", policy="strict", evidence=source, accept_inconclusive=True)
    assert any("union" in line for line in store.history()[-1].detail["accepted_inconclusive"])


def test_models_of_several_runs_are_refused_by_name_until_somebody_takes_them(store: MemoryStore, home: Path) -> None:
    def source(*_: Any) -> Documents:
        return documents(PASS, runs={"ranking": "another"})

    with pytest.raises(Refused, match=r"run r: retrieval, fallback; run another: ranking") as error:
        start(store, home, "streamrec:a", policy="strict", evidence=source)
    assert error.value.next_command == "streamrec build"
    start(store, home, "streamrec:a", policy="strict", evidence=source, accept_inconclusive=True)
    assert ["one_run" in line for line in store.history()[-1].detail["accepted_inconclusive"]] == [True]


def test_a_policy_that_asks_for_no_evidence_says_what_it_passed_over(store: MemoryStore, home: Path) -> None:
    looked = []

    def source(*_: Any) -> Documents:
        looked.append(1)
        return documents(FAIL, without=("latency",))

    result = start(store, home, "streamrec:a", evidence=source)
    told = store.history()[-1].detail["not_asked_for"]
    assert [line.split(":")[0] for line in told] == [
        f"[fail] {', '.join(KINDS)}",
        f"[none] {', '.join(KINDS)}",
    ]
    assert f"not asked for by free@1: {told[-1]}" in result.plan
    assert "streamrec models check streamrec:a" in result.plan[-2]
    assert len(looked) == 1
    whole = start(store, home, "streamrec:b", NOW_US + 1, supersede=True, evidence=lambda *_: documents(PASS))
    assert not any("not asked for" in line for line in whole.plan)


def test_a_registry_that_is_away_holds_up_only_who_asks_for_evidence(store: MemoryStore, home: Path) -> None:
    def away(*_: Any) -> Documents:
        raise Unreachable("MLflow does not answer")

    with pytest.raises(Unreachable):
        start(store, home, "streamrec:a", policy="strict", evidence=away)
    assert start(store, home, "streamrec:a", evidence=away).changed
    assert store.history()[-1].detail["not_asked_for"] == ["[none] MLflow does not answer"]


def test_an_escalation_that_names_nobody_is_had_by_a_quality_policy() -> None:
    nobody = Check(name="escalation", verdict="inconclusive", detail="a role", command="streamrec models check X")
    assert {one.command for one in missing(documents(PASS, nobody), "streamrec:a")} == {
        "STREAMREC_QUALITY=quality.toml streamrec models check streamrec:a"
    }


def test_whole_evidence_lacks_nothing() -> None:
    assert missing(documents(PASS)) == []
    assert demand_evidence("t", documents(PASS), accept_inconclusive=False) == []


def test_a_version_of_an_older_day_is_refused_with_the_command_for_each_item_that_nobody_checked() -> None:
    older = documents(
        without=("latency", "rollback", "escalation", "leakage_ids", "leakage_shuffled", "drift_baseline")
    )
    for accept in (False, True):  # what was never looked at is nothing to take on anybody's word
        with pytest.raises(Refused) as error:
            demand_evidence("streamrec:a", older, accept_inconclusive=accept)
        assert error.value.exit_code == 3
    everybody = "retrieval, ranking, fallback: never checked:"
    assert [str(one) for one in missing(older, "streamrec:a")] == [
        f"{everybody} leakage (no row, id or column tells of the future): leakage_ids, leakage_shuffled → "
        "streamrec train --data DIR",
        f"{everybody} latency (the exported files answer within their budget) → streamrec models check streamrec:a",
        "ranking: never checked: drift_baseline (something to measure drift against) → streamrec train --data DIR",
        f"{everybody} rollback (what people get when it is taken back) → streamrec models check streamrec:a",
        f"{everybody} escalation (who is called, and what they do: [escalation] contact of the quality policy) → "
        "STREAMREC_QUALITY=quality.toml streamrec models check streamrec:a",
    ]
    bare = {kind: document(kind, "r", ()) for kind in KINDS}
    assert len(missing(bare)) == len(CHECKLIST)


def test_a_start_says_what_it_would_go_back_to(store: MemoryStore, home: Path) -> None:
    assert start(store, home, "streamrec:a", dry_run=True).plan[-1].startswith("nothing to go back to")
    champion(store, home, "streamrec:a")
    assert start(store, home, "streamrec:b", dry_run=True).plan[-1] == "back to streamrec:a: streamrec release rollback"


def test_a_bento_without_labels_has_no_evidence(home: Path) -> None:
    assert read_evidence("streamrec:a", settings(home)) == dict.fromkeys(KINDS)


def test_rules_are_a_release_of_the_champions_bento(store: MemoryStore, home: Path) -> None:
    document = RulesDocument(version="2", category_cap=5)
    with pytest.raises(Refused, match="champion"):
        start(store, home, None, rules=document)
    champion(store, home, "streamrec:a")
    result = start(store, home, None, NOW_US + 1, rules=document)
    assert result.release is not None
    assert result.release.kind == "rules"
    assert result.release.candidate.rules == document.digest
    assert result.release.candidate.bento == "streamrec:a"
    assert store.load().rules[document.digest] == document


def test_rules_that_were_promoted_stay_in_force_with_the_next_bento(store: MemoryStore, home: Path) -> None:
    document = RulesDocument(version="2", category_cap=5)
    champion(store, home, "streamrec:a")
    start(store, home, None, NOW_US + 1, rules=document)
    state = store.load()
    after = machine.apply(state, Promote(force=True), NOW_US + 2)
    store.commit(state, after, actor=commands.Actor("t", "admin"), action="t", subject="t", detail={}, now_us=NOW_US)
    release = start(store, home, "streamrec:b", NOW_US + 3).release
    assert release is not None
    assert (release.candidate.bento, release.candidate.rules) == ("streamrec:b", document.digest)
    assert store.load().rules[document.digest] == document


@pytest.mark.parametrize("operation", [commands.promote, commands.rollback, commands.pause, commands.resume])
def test_a_command_without_a_release_is_refused_and_audited(store: MemoryStore, home: Path, operation: Any) -> None:
    with pytest.raises(Refused) as error:
        operation(store, settings(home), None, now_us=NOW_US)
    assert error.value.next_command
    assert store.history()[-1].action == "refused"


def test_commands_move_a_release(store: MemoryStore, home: Path) -> None:
    champion(store, home, "streamrec:a")
    start(store, home, "streamrec:b", NOW_US + 1)
    chosen = settings(home)
    assert commands.canary(store, chosen, None, now_us=NOW_US + 2).release.state == "canary"  # type: ignore[union-attr]
    assert commands.pause(store, chosen, None, now_us=NOW_US + 3).release.state == "paused"  # type: ignore[union-attr]
    assert commands.resume(store, chosen, None, now_us=NOW_US + 4).release.state == "canary"  # type: ignore[union-attr]
    with pytest.raises(Refused, match="not ready"):
        commands.promote(store, chosen, None, now_us=NOW_US + 5)
    with pytest.raises(Refused, match="no step"):
        commands.go(store, chosen, None, kind="canary", weight=33, now_us=NOW_US + 6)
    done = commands.rollback(store, chosen, None, now_us=NOW_US + 7, reason="no")
    assert done.release is not None
    assert (done.release.state, done.release.reason) == ("rolled_back", "no")


def test_a_command_that_meets_the_controller_is_applied_to_what_is_there_then(store: MemoryStore, home: Path) -> None:
    champion(store, home, "streamrec:a")
    start(store, home, "streamrec:b", NOW_US + 1)
    load, met = store.load, 0

    def meets() -> Any:
        nonlocal met
        state = load()
        met += 1
        if met == 2:  # between its read and its commit
            store.commit(state, state, actor=commands.Actor("c", "admin"), action="x", subject="x", detail={}, now_us=1)
        return state

    store.load = meets  # type: ignore[method-assign]
    commands.pause(store, settings(home), None, now_us=NOW_US + 2)
    assert load().release.state == "paused"  # type: ignore[union-attr]
    assert [e.action for e in store.history()].count("release.pause") == 1


def test_status_has_the_keys_that_scripts_read(store: MemoryStore, home: Path) -> None:
    champion(store, home, "streamrec:a")
    start(store, home, "streamrec:b", NOW_US + 1)
    document = commands.status(store, settings(home), now_us=NOW_US + 2)
    assert document["champion"] == "streamrec:a"
    assert document["controller"] is None
    assert "no controller" in document["problems"][0]
    newest = document["releases"][0]
    assert {"candidate", "state", "step", "weight", "metrics", "next"} <= set(newest)
    assert newest["candidate"] == "streamrec:b"


def test_break_glass_without_a_key_is_not_found(home: Path) -> None:
    with pytest.raises(NotFound):
        commands.break_glass(settings(home), reason="", now_us=NOW_US, actor="local:t")


def retire(store: MemoryStore, home: Path, *tags: str, **more: Any) -> Result:
    return commands.retire(store, settings(home), None, tags=tags, now_us=NOW_US, **more)


def there(home: Path) -> list[str]:
    return sorted(path.parent.name for path in home.glob("bentoml/bentos/streamrec/*/bento.yaml"))


def models(home: Path) -> list[str]:
    return sorted(f"{p.parent.parent.name}:{p.parent.name}" for p in home.glob("bentoml/models/*/*/weights"))


def test_a_retired_bento_goes_with_the_models_that_only_it_pins(store: MemoryStore, home: Path) -> None:
    result = retire(store, home, "streamrec:c")
    assert there(home) == ["a", "b"]
    assert models(home) == ["streamrec-ranking:shared", "streamrec-retrieval:a", "streamrec-retrieval:b"]
    assert result.more["freed_bytes"] >= 60_000
    assert result.more["models"] == ["streamrec-retrieval:c"]
    assert (home / "bentoml/bentos/streamrec/latest").read_text() in ("a", "b")
    assert not list(home.glob(f"bentoml/{RETIRED}/*"))
    entry = store.history()[-1]
    assert entry.action == "release.retire"
    assert entry.detail["retired"] == ["streamrec:c"]


def test_what_something_depends_on_is_not_retired(store: MemoryStore, home: Path) -> None:
    champion(store, home, "streamrec:a")
    start(store, home, "streamrec:b", NOW_US + 1)
    for tag in ("streamrec:a", "streamrec:b"):
        with pytest.raises(Refused, match="still needed"):
            retire(store, home, "streamrec:c", tag)
    assert there(home) == ["a", "b", "c"]
    assert store.history()[-1].action == "refused"
    assert dependents("streamrec:c", store.load()) == []


def test_all_old_ones_go_but_those_that_are_needed(store: MemoryStore, home: Path) -> None:
    champion(store, home, "streamrec:a")
    third_us = int(datetime(2026, 1, 3, tzinfo=UTC).timestamp() * 1e6)
    preview = retire(store, home, before_us=third_us, dry_run=True)
    assert there(home) == ["a", "b", "c"]
    result = retire(store, home, before_us=third_us)
    assert preview.plan == result.plan
    assert there(home) == ["a", "c"]
    assert any("keep streamrec:a" in line for line in result.plan)


def test_a_release_that_starts_while_its_bento_goes_brings_it_back(store: MemoryStore, home: Path) -> None:
    champion(store, home, "streamrec:a")
    commit, met = store.commit, 0

    def meets(*args: Any, **more: Any) -> Any:
        nonlocal met
        met += 1
        if met == 1:  # it looked before the Bento was set aside, and commits now
            state = store.load()
            candidate = {"kind": "start", "id": "r-b", "candidate": {"bento": "streamrec:b"}}
            release = state.release.model_copy(update={"state": "created", "id": "r-b", "ended_us": None})  # type: ignore[union-attr]
            release = release.model_copy(update={"candidate": commands.Target.model_validate(candidate["candidate"])})
            commit(state, state.model_copy(update={"release": release}), actor=more["actor"], action="release.start",
                   subject="r-b", detail={}, now_us=NOW_US)  # fmt: skip
        return commit(*args, **more)

    store.commit = meets  # type: ignore[method-assign]
    with pytest.raises(Refused, match="a moment ago"):
        retire(store, home, "streamrec:b")
    assert there(home) == ["a", "b", "c"]


def test_what_a_killed_retirement_left_aside_is_swept(home: Path) -> None:
    left = home / "bentoml" / RETIRED / "z-123456"
    left.mkdir(parents=True)
    sweep(home)
    assert not left.exists()


def test_an_unknown_bento_cannot_be_retired(store: MemoryStore, home: Path) -> None:
    with pytest.raises(NotFound):
        retire(store, home, "streamrec:z")
