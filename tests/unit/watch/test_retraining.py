"""Whether to train, and why: three answers; bounds; and a run through the commands."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from contracts.errors import StreamRecError
from monitoring.retraining import history
from monitoring.retraining.act import CommandFailed, act, export, exports
from monitoring.retraining.decide import HOUR_US, Data, Ruling, decide
from monitoring.signals import Signal
from monitoring.watch.schema import Retraining, Rule, read_schema, schema_path
from registry.control.documents import MemoryDocuments
from tests.unit.watch.world import BEGIN_US, signal

NOW = BEGIN_US
DRIFT = Rule(name="drift", kind="drift", signals=("drift.severity",), for_hours=1)
POLICY = Retraining(rules=(DRIFT,), least_events=10)
SHIPPED = read_schema(schema_path(Path("no-home"))).retraining


def drifting(hours: float = 2) -> Signal:
    """Found by looks of the last `hours`; the first already said that it began a day before."""
    return signal("drift.severity", "breach", NOW, since=NOW - 26 * HOUR_US, seen=NOW - int(hours * HOUR_US))


def run(state: str = "done", ended_h: float = 100, *, action: str = "train", cpu_h: float = 0.1) -> dict[str, Any]:
    ended = NOW - int(ended_h * HOUR_US)
    return {
        "id": "t",
        "action": action,
        "state": state,
        "began_us": ended - 1,
        "ended_us": ended,
        "cpu_s": 3600 * cpu_h,
    }


def test_a_rule_that_fires_is_a_yes_and_says_why():
    ruling = decide(POLICY, [drifting()], [], NOW)
    assert (ruling.answer, ruling.action) == ("yes", "train")
    assert "drift.severity" in ruling.why


def test_all_is_well_is_a_no():
    assert decide(POLICY, [signal("drift.severity", "ok", NOW)], [], NOW).answer == "no"


def test_an_old_model_that_is_healthy_is_not_trained_unless_a_rule_on_its_age_says_so():
    old = signal("age.model", "breach", NOW, "streamrec:a", value=2000.0, threshold=72.0)
    well = [signal("drift.severity", "ok", NOW), signal("outcome.ctr", "ok", NOW, value=0.1)]
    fresh = [signal("slice.country=DE.ctr", "ok", NOW), signal("age.batch_lists", "ok", NOW, "", value=1.0)]
    assert decide(SHIPPED, [old, *well, *fresh], [], NOW).answer == "no"
    by_age = Rule(name="old_model", kind="age", signals=("age.model",), max_hours=720)
    aged = SHIPPED.model_copy(update={"rules": (*SHIPPED.rules, by_age)})
    assert decide(aged, [old, *well, *fresh], [], NOW).answer == "yes"


def test_old_lists_are_made_anew_which_is_no_training():
    lists = signal("age.batch_lists", "breach", NOW, "", value=37.0)
    assert decide(SHIPPED, [lists], [], NOW).action == "batch"
    assert decide(SHIPPED, [lists], [run(ended_h=1)], NOW).answer == "yes"  # a training's cool-down is not theirs


@pytest.mark.parametrize(
    "known",
    [[], [signal("drift.severity", "inconclusive", NOW)], [signal("drift.severity", "ok", NOW - 27 * HOUR_US)]],
    ids=["nothing", "inconclusive", "too old"],
)
def test_what_is_not_known_is_inconclusive_and_never_no(known: list[Signal]):
    assert decide(POLICY, known, [], NOW).answer == "inconclusive"


def test_a_breach_must_last():
    assert decide(POLICY, [drifting(0.5)], [], NOW).answer == "no"
    assert decide(POLICY, [drifting(0)], [], NOW + 2 * HOUR_US).answer == "no"  # by looks, not by the clock


def test_a_rule_may_count_only_with_another_breach():
    rule = DRIFT.model_copy(update={"only_with": ("outcome.*",)})
    policy = POLICY.model_copy(update={"rules": (rule,)})
    assert decide(policy, [drifting(), signal("outcome.ctr", "ok", NOW)], [], NOW).answer == "no"
    assert decide(policy, [drifting(), signal("outcome.ctr", "breach", NOW)], [], NOW).answer == "yes"
    assert decide(policy, [drifting(), signal("outcome.ctr", "inconclusive", NOW)], [], NOW).answer == "inconclusive"


@pytest.mark.parametrize(
    ("runs", "word"),
    [
        ([run(ended_h=5)], "cool-down"),
        ([run(ended_h=h) for h in (100, 60, 30)], "at most 3"),
        ([run(ended_h=400, cpu_h=50)], "CPU hours"),
        ([run("failed", 90), run("failed", 50)], "a person must look"),
        ([{**run("running"), "ended_us": None}], "under way"),
    ],
    ids=["cool-down", "rate", "budget", "failures", "running"],
)
def test_bounds_turn_a_yes_into_a_no_that_says_which(runs: list[dict[str, Any]], word: str):
    ruling = decide(POLICY, [drifting()], runs, NOW)
    assert ruling.answer == "no"
    assert word in "; ".join(ruling.blocked)


def test_a_release_under_way_is_waited_for():
    assert decide(POLICY, [drifting()], [], NOW, release_under_way="r-1").blocked == ("release r-1 is under way",)


def test_too_little_to_learn_from_is_a_no_and_unknown_data_inconclusive():
    assert decide(POLICY, [drifting()], [], NOW, data=Data(9, 500)).answer == "no"
    assert decide(POLICY, [drifting()], [], NOW, data=Data(10, 500)).answer == "yes"
    assert decide(POLICY, [drifting()], [], NOW, data="the log is damaged").answer == "inconclusive"


def test_failures_that_a_person_has_seen_count_no_more():
    store = MemoryDocuments()
    store.write(history.DOCUMENT, 0, {"runs": [run("failed", 90), run("failed", 50)]})
    assert history.forgive(store) == 2
    assert decide(POLICY, [drifting()], history.runs_of(store), NOW).answer == "yes"


YES = Ruling("yes", "train", "drift: drift.severity is in breach")


class Commands:
    """Plays `streamrec`; `fails`: the command that does not end well."""

    def __init__(self, fails: str = "") -> None:
        self.said: list[Sequence[str]] = []
        self.fails = fails

    def __call__(self, words: Sequence[str]) -> dict[str, Any]:
        self.said.append(words)
        if words[0] == self.fails:
            raise CommandFailed(words, 3, "error: no")
        return {
            "models": {k: f"models:/streamrec-{k}/2" for k in ("retrieval", "ranking", "fallback")},
            "run_id": "abc",
            "tag": "streamrec:new",
            "release": "r-1",
            "events": 20,
            "impressions": 200,
        }


def test_a_run_goes_through_the_commands_and_its_result_enters_as_challenger(tmp_path: Path):
    store, cli = MemoryDocuments(), Commands()
    policy = POLICY.model_copy(update={"release_policy": "fast"})
    done = act(store, YES, policy, tmp_path, tmp_path / "data", cli=cli, clock_us=lambda: NOW)
    assert done["state"] == "done"
    assert [words[0] for words in cli.said] == ["train", "build", "release"]
    assert cli.said[1][1:] == [
        *("--retrieval", "models:/streamrec-retrieval/2"),
        *("--ranking", "models:/streamrec-ranking/2"),
        *("--fallback", "models:/streamrec-fallback/2"),
    ]
    assert list(cli.said[2][:3]) == ["release", "start", "streamrec:new"]
    assert cli.said[2][-2:] == ["--policy", "fast"]
    assert history.runs_of(store)[0]["steps"]["build"]["tag"] == "streamrec:new"


@pytest.mark.parametrize("fails", ["train", "build", "release"])
def test_a_step_that_fails_ends_the_run_and_says_which(tmp_path: Path, fails: str):
    store, cli = MemoryDocuments(), Commands(fails)
    done = act(store, YES, POLICY, tmp_path, tmp_path, cli=cli, clock_us=lambda: NOW)
    assert done["state"] == "failed"
    assert fails in done["problem"]
    assert cli.said[-1][0] == fails


def test_two_runs_at_once_are_refused_and_one_whose_process_is_gone_has_failed(tmp_path: Path):
    store = MemoryDocuments()
    assert history.begin(store, {**run("running"), "id": "first", "ended_us": None})
    with pytest.raises(StreamRecError, match="another retraining"):
        act(store, YES, POLICY, tmp_path, tmp_path, cli=Commands(), clock_us=lambda: NOW)
    history.update(store, "first", {"pid": 2**22 + 1})
    assert history.runs_of(store)[0]["state"] == "failed"
    assert act(store, YES, POLICY, tmp_path, tmp_path, cli=Commands(), clock_us=lambda: NOW)["state"] == "done"


def test_two_questions_export_apart_and_leave_nothing(tmp_path: Path):
    cli = Commands()
    with exports(tmp_path) as ours, exports(tmp_path) as theirs:
        asked = [export(folder, POLICY, "2026-01-01T00:00:00", cli)[0] for folder in (ours, theirs)]
        targets = [words[2] for words in cli.said]
        assert len(set(targets)) == 4
        assert [Path(targets[0]), Path(targets[2])] == asked
        left = tmp_path / "retraining" / "export-of-a-killed-one"
        left.mkdir()
        os.utime(left, (0, 0))
        with exports(tmp_path):  # of a third one: it takes away what nobody will, and nothing of those that run
            assert sorted(p.exists() for p in (ours, theirs, left)) == [False, True, True]
    assert list((tmp_path / "retraining").iterdir()) == []
