"""What a replay says where something is gone, is not as it was, or was tampered with."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

import monitoring.replay.replay as module
from bentos.catalogue.store import CATALOGUE_DB, CatalogueStore
from bentos.telemetry.item_counts import save_counts
from bentos.telemetry.states import kept_counts
from contracts.errors import NotFound
from contracts.exposures import ContextRecord
from contracts.live_items import ItemChange
from contracts.user_keys import UserKeys, rotate
from monitoring.replay.record import Logged, logged
from monitoring.replay.replay import Replay, Replayer
from monitoring.replay.users import who
from tests.changing_service import Service, folders

STEPS = ("put_items", "flag", "count", "materialise", "meet")


def one_answer(service: Service, **request: Any) -> Logged:
    """Of a user whom the store knows, after everything has changed once."""

    async def go() -> str:
        for step in STEPS:
            await getattr(service, step)()
        return (await service.ask(**request)).query.request_id

    request_id = asyncio.run(go())
    asyncio.run(service.close())
    return logged(service.home, request_id)


def replayed(service: Service, found: Logged, bento: str | None = None, **worlds: Path) -> Replay:
    here = Replayer(service.home, lambda tag: (tag, folders(worlds.get(tag, service.world))))
    try:
        return here.replay(found, bento)
    finally:
        here.close()


def changed(found: Logged, **fields: Any) -> Logged:
    assert found.context is not None
    return replace(found, context=msgspec.structs.replace(found.context, **fields))


def context(found: Logged) -> ContextRecord:
    assert found.context is not None
    return found.context


GONE: list[tuple[str, str, Callable[[Path], list[Path]]]] = [
    ("counts", "item counts of ", lambda home: list(home.glob("states/counts-*"))),
    ("items", "item features of version ", lambda home: list(home.glob("states/items-*"))),
    ("rules", "rules document default@", lambda home: list(home.glob("states/rules-*"))),
    ("catalogue", "the live catalogue ", lambda home: list(home.glob(CATALOGUE_DB + "*"))),
]


@pytest.mark.parametrize(("what", "words", "files"), GONE, ids=[name for name, _, _ in GONE])
def test_a_version_that_is_gone_is_named_and_nothing_is_claimed(
    service: Any, what: str, words: str, files: Callable[[Path], list[Path]]
) -> None:
    here = service()
    found = one_answer(here)
    assert replayed(here, found).verdict == "same"
    gone = files(here.home)
    assert gone
    for path in gone:
        path.unlink()
    told = replayed(here, found)
    assert (told.verdict, told.exact) == ("inconclusive", None)
    assert told.why.startswith(f"gone: {words}" if what != "rules" else "gone: rules document ")
    assert [row["item_id"] for row in told.slate] == context(found).item_ids


def test_a_catalogue_whose_past_was_forgotten_is_not_taken_for_that_of_then(
    service: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = service()
    found = one_answer(here)
    monkeypatch.setattr("bentos.catalogue.store.PAST_STATES", 4)
    store = CatalogueStore(here.home)
    for number in range(5):
        store.apply([ItemChange("i1", "flag", 1, flagged=number % 2 == 0)])
        assert replayed(here, found).verdict == "same"  # four past states are kept, and one is in use
    store.apply([ItemChange("i1", "flag", 1, flagged=False)])
    store.close()
    assert replayed(here, found).why.startswith("gone: the live catalogue ")


def test_a_bento_that_is_gone_leaves_the_logged_slate(service: Any) -> None:
    here = service()
    found = one_answer(here)

    def none(tag: str) -> Any:
        raise NotFound(f"there is no Bento {tag}")

    told = Replayer(here.home, none).replay(found)
    assert (told.verdict, told.why) == ("inconclusive", "gone: there is no Bento unbuilt")
    assert len(told.slate) == 20


def test_an_answer_without_a_context_record_is_inconclusive_unless_it_was_a_list(service: Any) -> None:
    here = service(log_contexts=0.0)

    async def go() -> list[str]:
        return [(await here.ask(aim, user_id=aim)).query.request_id for aim in ("full", "lists")]

    computed, listed = asyncio.run(go())
    asyncio.run(here.close())
    told = replayed(here, logged(here.home, computed))
    assert (told.verdict, told.how, told.exact) == ("inconclusive", "logged", None)
    assert "sampled away or dropped" in told.why
    assert len(told.slate) == 20
    told = replayed(here, logged(here.home, listed))
    assert (told.verdict, told.how) == ("same", "logged")
    assert told.why == "the answer is the list that was logged (popularity)"


@pytest.mark.parametrize("rung", ["batch", "cached", "popularity"])
def test_a_list_is_given_as_it_was_logged(service: Any, rung: str) -> None:
    here = service()

    async def go() -> str:
        if rung == "batch":
            await here.publish()
        if rung == "cached":
            await here.ask(user_id="u2")
        answer = await here.ask("lists", user_id="u2")
        assert answer.slate.degradation == rung
        return str(answer.query.request_id)

    request_id = asyncio.run(go())
    asyncio.run(here.close())
    found = logged(here.home, request_id)
    told = replayed(here, found)
    assert (told.verdict, told.how, told.exact, told.stages) == ("same", "logged", None, [])
    assert told.slate == [
        {"item_id": item, "score": score}
        for item, score in zip(context(found).item_ids, context(found).scores, strict=True)
    ]
    assert context(found).lists == ("lists-1" if rung == "batch" else "")


def test_a_request_that_nobody_logged_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no log under"):
        logged(tmp_path, "01a2047b-0ac7-7fe7-8075-9155bb00a207")


def test_a_record_of_before_versions_were_named_is_inconclusive(service: Any) -> None:
    here = service()
    told = replayed(here, changed(one_answer(here), versions=None, states=None))
    assert (told.verdict, told.why) == ("inconclusive", "the record is of before records named their versions")


def test_a_slate_that_was_tampered_with_is_found_and_the_stage_named(service: Any) -> None:
    here = service()
    found = one_answer(here)
    ids = context(found).item_ids
    told = replayed(here, changed(found, item_ids=[ids[1], ids[0], *ids[2:]]))
    assert (told.verdict, told.exact, told.why) == ("different", False, "it parts at rerank")
    assert told.stages[-1].differences == ("the same items in another order",)
    used = context(found).features
    at = next(n for n, f in enumerate(used) if f.name == "user_tenure_days")
    used = [*used[:at], msgspec.structs.replace(used[at], value=9_000.0, age_s=1.0, source="store"), *used[at + 1 :]]
    told = replayed(here, changed(found, features=used))
    assert (told.verdict, told.why) == ("different", "it parts at rank")


def test_other_counts_under_the_same_name_are_noticed(service: Any) -> None:
    here = service()
    found = one_answer(here)
    (path,) = here.home.glob("states/counts-*")
    counts = kept_counts(here.home, int(path.stem.partition("-")[2]))
    assert counts is not None
    save_counts(path, replace(counts, n=counts.n[::-1] + 3, decayed=counts.decayed * 2), np.savez_compressed)
    told = replayed(here, found)
    assert told.verdict == "different"
    assert told.why in ("it parts at source.content", "it parts at source.trending", "it parts at rank")


def test_on_another_instruction_set_the_slate_is_the_same_within_the_tolerance_and_that_is_said(
    service: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = service()
    found = one_answer(here)
    monkeypatch.setattr(module, "machine", lambda: "another one")
    exact = replayed(here, found)  # by chance the bits are the same: it is said where they were computed
    assert (exact.verdict, exact.exact) == ("same", True)
    assert exact.unlike[0].startswith("computed on: ")
    off = [score + 4e-6 for score in context(found).scores]
    told = replayed(here, changed(found, scores=off))
    assert (told.verdict, told.exact) == ("same", False)
    assert told.why.startswith("another instruction set or library: scores apart by at most 4e-06")
    far = [score + 4e-5 for score in context(found).scores]
    assert replayed(here, changed(found, scores=far)).verdict == "different"


def test_answers_of_runners_apart_are_not_called_different_for_being_ahead(service: Any) -> None:
    here = service()
    found = one_answer(here)
    states = context(found).states
    assert states is not None
    apart = msgspec.structs.replace(states, topology="distributed")
    ids = context(found).item_ids
    told = replayed(here, changed(found, states=apart, item_ids=[*ids[1:], ids[0]]))
    assert told.verdict == "inconclusive"
    assert "processes of their own" in told.unlike[0]


def test_another_bento_is_compared_stage_by_stage(service: Any, worlds: Mapping[str, Path]) -> None:
    here = service()
    found = one_answer(here)
    told = replayed(here, found, "other", other=worlds["other"])
    assert (told.verdict, told.exact) == ("same", True)
    other = told.other
    assert other is not None
    assert other["bento"] == "other"
    assert len(other["slate"]) == 20
    assert [row["item_id"] for row in other["slate"]] != [row["item_id"] for row in told.slate]
    difference = {stage["stage"]: stage for stage in other["difference"]}
    assert next(iter(difference)) == "hydrate"
    assert not difference["rerank"]["same"]
    rerank = difference["rerank"]
    assert rerank["common"] + len(rerank["only_named"]) == 20
    assert {"common", "only_named", "only_other", "moved"} <= difference["source.two_tower"].keys()
    same = replayed(here, found, "itself")
    assert same.other is not None
    assert all(stage["same"] for stage in same.other["difference"])


def test_all_candidates_are_compared_where_the_sample_has_them(service: Any) -> None:
    here = service(log_candidates=1.0)
    found = one_answer(here)
    record = context(found)
    assert {name: len(ids) for name, ids in record.candidates.items()} == {
        name: len(scores) for name, scores in record.candidate_scores.items()
    }
    assert record.ranked_item_ids[:50] == record.top_item_ids
    assert record.ranked_scores[:50] == record.top_scores
    assert len(record.ranked_item_ids) > 100
    assert replayed(here, found).stages[-3].same is True  # the filter
    scores = {name: [score + 1 for score in scores] for name, scores in record.candidate_scores.items()}
    told = replayed(here, changed(found, candidate_scores=scores))
    assert (told.verdict, told.exact) == ("same", True)
    assert told.why == "bit for bit, though source.graph is not as logged"


def test_answers_of_hidden_users_replay_with_the_keys_and_are_inconclusive_without(
    service: Any, tmp_path: Path
) -> None:
    path = tmp_path / "keys.json"
    rotate(path, 0)
    here = service(user_keys=path)

    async def go() -> list[str]:
        for step in STEPS:
            await getattr(here, step)()
        asked = [(await here.ask_at_random()).query.request_id for _ in range(20)]
        rotate(path, 1)
        here.runtime._contexts._hide = UserKeys(path).hide  # as a process has it a second later
        return asked + [(await here.ask_at_random()).query.request_id for _ in range(20)]

    requests = asyncio.run(go())
    asyncio.run(here.close())
    records = [logged(here.home, request) for request in requests]
    assert {context(record).user_id[:3] for record in records} == {"k1.", "k2."}
    with_keys = Replayer(here.home, lambda tag: (tag, folders(here.world)), who(UserKeys(path)))
    assert {with_keys.replay(record).verdict for record in records} == {"same"}
    without = Replayer(here.home, lambda tag: (tag, folders(here.world)), who(None))
    told = [replay for replay in map(without.replay, records) if replay.how == "replayed"]
    assert {(replay.verdict, replay.why) for replay in told} == {
        ("inconclusive", "gone: the key that the user's id was hidden with is not here")
    }
