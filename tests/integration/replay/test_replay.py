"""A replay gives the slate that was shown, bit by bit, whatever has changed since."""

import asyncio
from collections import Counter
from typing import Any

import pytest

from bentos.recommender.runtime import Answer
from bentos.telemetry.contexts import read_contexts
from bentos.telemetry.kinds import context_of_row
from bentos.telemetry.roll import roll
from contracts.live_items import ItemChange
from monitoring.replay import replay as replaying
from monitoring.replay.record import Logged, logged
from monitoring.replay.replay import Replay, Replayer
from tests.changing_service import Service, folders


async def answered(service: Service, n: int, every: int) -> list[Answer]:
    """n random requests; something changes after each `every` of them."""
    answers = []
    for number in range(n):
        if number % every == 0:
            await service.change_something()
        answers.append(await service.ask_at_random())
    return answers


def replayed(service: Service, answers: list[Answer]) -> list[Replay]:
    """Each by its record; every twentieth is looked for as `streamrec replay` does."""
    rows = {row["request_id"]: row for row in read_contexts(service.home).to_pylist()}
    again = Replayer(service.home, lambda tag: (tag, folders(service.world)))
    found = []
    for number, answer in enumerate(answers):
        request_id = answer.query.request_id
        by_hand = logged(service.home, request_id) if number % 20 == 0 else None
        found.append(again.replay(by_hand or Logged(request_id, context_of_row(rows[request_id]), None)))
    again.close()
    return found


@pytest.mark.parametrize("source", ["graph", "two_tower"])
def test_flags_that_come_while_an_answer_is_made_are_those_of_its_replay(service: Any, source: str) -> None:
    """They are the first of all: when the request began there was no live catalogue that it could have named."""
    here: Service = service()
    sources = here.runtime.funnel.stages.retrieval.sources
    retrieve = sources[source].retrieve

    def flagged_meanwhile(*given: Any) -> Any:
        brought = retrieve(*given)
        ids = here.runtime.models.catalogue.item_ids
        here.catalogue.apply([ItemChange(ids[row], "flag", 1, flagged=True) for row in brought.items[:50].tolist()])
        here.runtime._upkeep.live.look()
        return brought

    sources[source].retrieve = flagged_meanwhile
    answer = asyncio.run(here.ask(user_id="u1"))
    asyncio.run(here.close())
    [found] = replayed(here, [answer])
    assert (found.verdict, found.exact) == ("same", True), found.why
    assert found.states is not None
    assert (found.states.flags, found.states.flags_until) == (0, 1)


def test_more_changes_of_the_catalogue_than_are_tried_cannot_tell(
    service: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    here: Service = service()
    sources = here.runtime.funnel.stages.retrieval.sources
    retrieve = sources["graph"].retrieve

    def flagged_twice(*given: Any) -> Any:
        brought = retrieve(*given)
        ids = here.runtime.models.catalogue.item_ids
        for n, rows in enumerate((brought.items[:25], brought.items[25:50])):
            changes = [ItemChange(ids[row], "flag", n + 1, flagged=True) for row in rows.tolist()]
            here.catalogue.apply(changes)
            here.runtime._upkeep.live.look()
        return brought

    sources["graph"].retrieve = flagged_twice
    answer = asyncio.run(here.ask(user_id="u1"))
    asyncio.run(here.close())
    monkeypatch.setattr(replaying, "MOST_VERSIONS", 1)
    [found] = replayed(here, [answer])
    assert (found.verdict, found.exact) == ("inconclusive", False), found.why
    assert found.unlike == ("the live catalogue changed 2 times while it was made; the first 1 are tried",)


@pytest.mark.parametrize(("clock", "n"), [("log_end", 500), ("wall", 500)])
def test_a_thousand_random_requests_replay_without_a_difference(service: Any, clock: str, n: int) -> None:
    """On both clocks; exclude lists, contexts, unknown users, rules and sources of a gateway, lower aims, a store that
    is away; the live catalogue, item counts, item features and the users' own features change in between."""
    here: Service = service(clock, seed=11)
    answers = asyncio.run(answered(here, n, 12))
    asyncio.run(here.close())
    if clock == "wall":
        roll(here.home)  # these are read from Parquet, the others from segments
    found = replayed(here, answers)
    wrong = [(r.request_id, r.why) for r in found if r.verdict != "same"]
    assert wrong == []
    for answer, replay in zip(answers, found, strict=True):
        assert [row["item_id"] for row in replay.slate] == list(answer.slate.item_ids)
        assert replay.exact is (True if replay.how == "replayed" else None)
        assert all(stage.same is not False for stage in replay.stages), replay.stages
    hows = Counter(replay.how for replay in found)
    assert hows["replayed"] > 0.85 * n
    assert hows["logged"] > 0.02 * n
    states = {replay.states for replay in found}
    assert len(states) > 20
