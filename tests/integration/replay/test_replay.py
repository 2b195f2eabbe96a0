"""A replay gives the slate that was shown, bit by bit, whatever has changed since."""

import asyncio
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from bentos.recommender.runtime import Answer
from bentos.telemetry.roll import roll
from monitoring.replay.record import logged
from monitoring.replay.replay import Replay, Replayer
from tests.changing_service import Service, folders


def replayer(home: Path, world: Path) -> Replayer:
    return Replayer(home, lambda tag: (tag, folders(world)))


async def answered(service: Service, n: int, every: int) -> list[Answer]:
    """n random requests; something changes after each `every` of them."""
    answers = []
    for number in range(n):
        if number % every == 0:
            await service.change_something()
        answers.append(await service.ask_at_random())
    return answers


def replayed(service: Service, answers: list[Answer], **more: Any) -> list[Replay]:
    asyncio.run(service.close())
    again = replayer(service.home, service.world)
    try:
        return [again.replay(logged(service.home, answer.query.request_id), **more) for answer in answers]
    finally:
        again.close()


@pytest.mark.parametrize(("clock", "n"), [("log_end", 500), ("wall", 500)])
def test_a_thousand_random_requests_replay_without_a_difference(service: Any, clock: str, n: int) -> None:
    """On both clocks; exclude lists, contexts, unknown users, rules and sources of a gateway, lower aims, a store that
    is away; the live catalogue, item counts, item features and the users' own features change in between."""
    here: Service = service(clock, seed=11)
    answers = asyncio.run(answered(here, n, 12))
    roll(here.home)  # closed or not: half of the records are read from Parquet
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
    assert len(states) > 25
