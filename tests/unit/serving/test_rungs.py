"""When a process says that its rung has changed, and why."""

import pytest

from bentos.recommender.health import Component
from bentos.recommender.rungs import HOLD, Rungs
from bentos.recommender.types import Slate

FINE = {name: Component("healthy") for name in ("retrieval", "ranking", "fallback", "online_store")}


def slate(rung, notes=(), stale=()):
    return Slate((), (), (), rung, "popularity", stale=stale, notes=notes)


def seconds(rungs, n, rung, best="full", components=FINE, aim="full", answers=10, **fields):
    """n seconds with so many answers of one rung."""
    for _ in range(n):
        for _ in range(answers):
            rungs.answered(slate(rung, **fields), aim)
        rungs.look(best, components, 1_700_000_000.0)


def test_one_slow_request_is_no_event_and_an_outage_is_one():
    rungs = Rungs()
    seconds(rungs, 5, "full")
    for _ in range(20):  # a late answer every second, among ten
        rungs.answered(slate("popularity"), "full")
        seconds(rungs, 1, "full")
    assert rungs.changes == []
    down = FINE | {"ranking": Component("unhealthy", "the Ranking process is away")}
    seconds(rungs, 300, "simple_ranking", components=down, best="simple_ranking")
    (change,) = rungs.changes
    assert (change.before, change.rung, change.cause) == ("full", "simple_ranking", "ranking")
    assert change.detail == "the Ranking process is away"
    assert change.at == "2023-11-14T22:13:20+00:00"
    seconds(rungs, HOLD, "full")
    assert [(c.before, c.rung, c.cause) for c in rungs.changes[1:]] == [("simple_ranking", "full", "recovered")]


def test_rungs_that_take_turns_every_second_are_no_change():
    rungs = Rungs()
    for i in range(50):
        seconds(rungs, 1, "full" if i % 2 else "popularity")
    assert rungs.changes == []


def test_without_answers_the_components_say_the_rung():
    rungs = Rungs()
    away = FINE | {"online_store": Component("degraded", "Redis does not answer")}
    for _ in range(HOLD):
        rungs.look("stale_features", away, 0.0)
    assert [(c.rung, c.cause, c.detail) for c in rungs.changes] == [
        ("stale_features", "online_store", "Redis does not answer")
    ]


@pytest.mark.parametrize(
    ("rung", "fields", "cause"),
    [
        ("popularity", {"aim": "lists"}, "overload"),
        ("popularity", {"notes": ("no computed slate: the deadline passed",)}, "deadline"),
        ("simple_ranking", {"notes": ("dcn: the scores are not finite",)}, "ranking"),
        ("stale_features", {"stale": ("user_tenure_days",)}, "stale_values"),
        ("stale_features", {"stale": ("online_store",), "notes": ("online store: late",)}, "online_store"),
        ("popularity", {"notes": ("no computed slate: KeyError('u1')",)}, "fault"),
    ],
)
def test_a_cause_is_named_and_nothing_that_a_user_sent(rung, fields, cause):
    rungs = Rungs()
    seconds(rungs, HOLD, rung, **fields)
    assert [(c.rung, c.cause, c.detail) for c in rungs.changes] == [(rung, cause, "")]


def test_a_part_that_is_gone_comes_before_the_load_that_it_causes():
    rungs = Rungs()
    down = FINE | {"ranking": Component("unhealthy", "dcn.onnx is missing")}
    seconds(rungs, HOLD, "simple_ranking", aim="simple_ranking", components=down)
    assert rungs.changes[0].cause == "ranking"


def test_only_so_many_changes_are_remembered():
    rungs = Rungs()
    for i in range(100):
        seconds(rungs, HOLD, "full" if i % 2 else "popularity")
    assert len(rungs.changes) == 20
