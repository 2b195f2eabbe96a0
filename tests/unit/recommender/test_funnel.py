"""The request path end to end on a synthetic world, with slow, hanging and failing parts."""

import asyncio
import math
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
import pytest

from benchmarks.reference_world import DAY_US, NOW_US
from bentos.recommender.assemble import load_models
from bentos.recommender.compose import FunnelConfig
from bentos.recommender.funnel import Funnel
from bentos.recommender.models import Models
from bentos.recommender.rules import default_rules
from bentos.recommender.types import Query, SourceResult, User
from contracts.budgets import Budgets
from contracts.errors import Overloaded, Unreachable
from features.online.base import Interaction, ItemSnapshot, PrecomputedList, Stamped, UserState

T = TypeVar("T")
PATIENT = FunnelConfig(budgets=Budgets(features_ms=5_000.0, retrieval_ms=4_000.0))


class Store:
    """A store that answers after `delay_s`, or raises."""

    def __init__(self, *states: UserState, delay_s: float = 0.0, error: Exception | None = None) -> None:
        self._states = {state.user_id: state for state in states}
        self._delay_s, self._error = delay_s, error

    async def read_user(self, user_id: str) -> UserState:
        if self._delay_s:
            await asyncio.sleep(self._delay_s)
        if self._error:
            raise self._error
        return self._states.get(user_id, UserState(user_id))


@pytest.fixture
def compute() -> Iterator[Any]:
    """One thread, in order."""
    pool = ThreadPoolExecutor(1)

    async def run(work: Callable[[], T], *, begun: bool = False) -> T:
        return await asyncio.get_running_loop().run_in_executor(pool, work)

    yield run
    pool.shutdown(wait=True, cancel_futures=True)


class Wrapped:
    """A source that does something first, or last."""

    def __init__(self, inner: Any, before: Callable[[], object], after: Callable[[], object] = lambda: None) -> None:
        self._inner, self._before, self._after = inner, before, after
        self.name, self.needs_session = inner.name, inner.needs_session

    def retrieve(self, query: Query, user: User, blocked: Any, quota: int) -> SourceResult:
        self._before()
        result: SourceResult = self._inner.retrieve(query, user, blocked, quota)
        self._after()
        return result


def serve(funnel: Funnel, query: Query, store: Any = None) -> Any:
    return asyncio.run(funnel.recommend(query, store or Store()))


def brought(slate: Any) -> dict[str, list[int]]:
    return {name: result.items.tolist() for name, result in slate.brought.items()}


def busy(seconds: float) -> None:
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass


def state(user_id: str = "u1", *items: str, event: str = "click") -> UserState:
    last = tuple(Interaction(item, event, NOW_US - 60_000_000 * at) for at, item in enumerate(items, 1))
    return UserState(user_id, {}, last, watermark_us=NOW_US)


def test_serving_and_evaluation_give_the_same_slate(models: Models, ask: Any, compute: Any) -> None:
    serving, offline = Funnel(models, default_rules(), compute=compute), Funnel(models, default_rules())
    for user in ("u1", "u2", "nobody"):
        known = state(user, "i3", "i9")
        query = ask(user, context={"country": "DE"})
        one, other = serve(serving, query, Store(known)), offline.run(query, known)
        for name in ("item_ids", "scores", "sources", "degradation", "ranked_by", "digest", "top", "notes"):
            assert getattr(one, name) == getattr(other, name)
        assert brought(one) == brought(other)
        assert one.degradation == "full"
        assert one.ranked_by == "dcn"
        assert len(one.item_ids) == 20


def test_sources_that_need_no_session_run_while_the_store_is_read(models: Models, ask: Any, compute: Any) -> None:
    """A store that takes 20 ms, and longer until the early sources are done, would wait for ever were they in turn."""
    funnel = Funnel(models, default_rules(), config=PATIENT, compute=compute)
    funnel.warm()
    early = ("graph", "content", "trending")
    done: set[str] = set()
    for name in early:
        funnel.stages.retrieval.sources[name] = Wrapped(
            funnel.stages.retrieval.sources[name], before=lambda: None, after=lambda name=name: done.add(name)
        )

    class Slow(Store):
        async def read_user(self, user_id: str) -> UserState:
            until = time.perf_counter() + 5
            await asyncio.sleep(0.02)
            while len(done) < len(early) and time.perf_counter() < until:
                await asyncio.sleep(0.001)
            return UserState(user_id)

    slate = serve(funnel, ask(deadline=time.perf_counter() + 20, debug=True), Slow())
    spans = slate.debug["spans_ms"]
    assert slate.notes == ()
    store_began, store_ended = spans["store"]
    assert store_ended - store_began >= 20
    for name in early:
        began, ended = spans[f"source.{name}"]
        assert store_began <= began <= store_ended
        assert ended - began < store_ended - store_began
    assert spans["source.two_tower"][0] >= store_ended


def test_where_the_store_does_not_wait_one_hop_gives_what_two_give(models: Models, ask: Any, compute: Any) -> None:
    hops = 0

    async def counted(work: Callable[[], T], **begun: bool) -> T:
        nonlocal hops
        hops += 1
        return await compute(work, **begun)

    class Here(Store):
        waits = False

    funnel = Funnel(models, default_rules(), compute=counted)
    for user in ("u1", "nobody"):
        for sources_off in ((), ("content", "two_tower")):
            query, known = ask(user, sources_off=sources_off), state(user, "i3", "i9")
            two = serve(funnel, query, Store(known))
            assert hops == 2
            one = serve(funnel, query, Here(known))
            assert hops == 3
            hops = 0
            for name in ("item_ids", "scores", "sources", "degradation", "digest", "top", "notes"):
                assert getattr(one, name) == getattr(two, name)
            assert brought(one) == brought(two)


@pytest.mark.parametrize("name", ["two_tower", "graph", "content", "trending"])
def test_a_late_source_is_left_out_by_name_and_the_rest_answer(
    name: str, models: Models, ask: Any, compute: Any
) -> None:
    funnel = Funnel(models, default_rules(), config=FunnelConfig(budgets=Budgets(retrieval_ms=200.0)), compute=compute)
    funnel.warm()
    funnel.stages.retrieval.sources[name] = Wrapped(funnel.stages.retrieval.sources[name], lambda: busy(0.25))
    slate = serve(funnel, ask(deadline=time.perf_counter() + 10))
    assert len(slate.item_ids) == 20
    assert slate.degradation == "full"
    assert any(note.startswith(f"source {name} left out: late") for note in slate.notes)
    assert name not in slate.brought


def test_a_failing_source_is_left_out_by_name(models: Models, ask: Any) -> None:
    funnel = Funnel(models, default_rules())
    for name in ("two_tower", "graph", "content"):
        funnel.stages.retrieval.sources[name] = Wrapped(funnel.stages.retrieval.sources[name], lambda: 1 / 0)
    slate = funnel.run(ask(), state())
    assert len(slate.item_ids) == 20
    assert set(slate.sources) == {("trending",)}
    assert sum("ZeroDivisionError" in note for note in slate.notes) == 3


def test_a_hanging_source_costs_the_rung_and_not_the_answer(models: Models, ask: Any, compute: Any) -> None:
    funnel = Funnel(models, default_rules(), compute=compute)
    let_go = threading.Event()
    funnel.stages.retrieval.sources["graph"] = Wrapped(
        funnel.stages.retrieval.sources["graph"], lambda: let_go.wait(20)
    )
    began = time.perf_counter()
    try:
        slate = serve(funnel, ask(deadline=began + 0.2))
        took = time.perf_counter() - began
    finally:
        let_go.set()
    assert slate.degradation == slate.ranked_by == "popularity"
    assert len(slate.item_ids) == 20
    assert took < 5  # not the 20 seconds that the source would take
    assert any("deadline" in note for note in slate.notes)


def test_a_full_compute_queue_gives_a_lower_rung(models: Models, ask: Any) -> None:
    async def full(work: Callable[[], Any], *, begun: bool = False) -> Any:
        raise Overloaded("64 wait")

    precomputed = PrecomputedList(("i8", "gone", "i4"), (0.9, 0.8, 0.7), "s1", "streamrec:1", NOW_US, "all")
    slate = serve(
        Funnel(models, default_rules(), compute=full), ask(k=2), Store(replace(state(), precomputed=precomputed))
    )
    assert slate.degradation == slate.ranked_by == "batch"
    assert set(slate.item_ids) == {"i8", "i4"}


def test_the_ladder_goes_batch_then_cached_then_popularity(models: Models, ask: Any) -> None:
    funnel = Funnel(models, default_rules())
    good = serve(funnel, ask(k=5))
    assert funnel.lowest(ask("u9"), None, "test").degradation == "popularity"
    cached = funnel.lowest(ask(k=5), None, "test")
    assert cached.degradation == "cached"
    assert set(cached.item_ids) == set(good.item_ids)
    assert dict(zip(cached.item_ids, cached.sources, strict=True)) == dict(
        zip(good.item_ids, good.sources, strict=True)
    )
    excluded = models.index.lookup_many(good.item_ids)
    assert not set(funnel.lowest(ask(k=5, exclude=excluded), None, "test").item_ids) & set(good.item_ids)


def test_a_short_list_is_filled_from_popularity(models: Models, ask: Any) -> None:
    listed = PrecomputedList(("i8",), (0.9,), "s1", "streamrec:1", NOW_US, "all")
    slate = Funnel(models, None).lowest(ask(k=10), replace(state(), precomputed=listed), "test")
    assert slate.degradation == "batch"
    assert slate.item_ids[0] == "i8"
    assert len(slate.item_ids) == 10
    assert list(slate.scores) == sorted(slate.scores, reverse=True)


def test_policy_holds_on_every_rung(models: Models, ask: Any) -> None:
    funnel = Funnel(models, default_rules())
    everything = tuple(models.catalogue.item_ids)
    listed = PrecomputedList(everything, tuple(1 / (1 + i) for i in range(400)), "s1", "t", NOW_US, "all")
    known = replace(state("u1", "i5", "i6"), precomputed=listed)
    exclude = np.array([10, 11, 12], np.int32)
    query = ask(k=500, exclude=exclude, context={"country": "FR"})
    rows = models.index.lookup_many(everything)
    forbidden = models.catalogue.is_flagged | (models.catalogue.published_us > NOW_US)
    forbidden[[5, 6, 10, 11, 12]] = True
    user = models.retrieval.users.lookup("u1")  # type: ignore[union-attr]
    start, end = models.retrieval.seen_indptr[user : user + 2]  # type: ignore[union-attr]
    forbidden[models.retrieval.seen_items[start:end]] = True  # type: ignore[union-attr]
    slates = {
        "full": funnel.run(query, known),
        "batch": funnel.lowest(query, known, "test"),
        "popularity": funnel.lowest(query, replace(known, precomputed=None), "test"),
    }
    for rung, slate in slates.items():
        assert slate.degradation == rung
        shown = models.index.lookup_many(slate.item_ids)
        assert not forbidden[shown].any()
        assert len(set(slate.item_ids)) == len(slate.item_ids) == int((~forbidden[rows]).sum())


def test_a_safety_filter_that_raises_lets_nothing_through(models: Models, ask: Any) -> None:
    class Broken:
        name = "flagged"

        def keep(self, *_: Any) -> Any:
            raise OSError("blocklist is gone")

    funnel = Funnel(models, default_rules())
    funnel.stages.filters[0] = Broken()
    slate = funnel.run(ask(), state())
    assert slate.item_ids == ()
    assert any("filter flagged failed closed" in note for note in slate.notes)


@pytest.mark.parametrize("error", [Unreachable("store is away"), OSError("disk"), None])
def test_without_the_store_the_answer_says_stale_features(
    error: Exception | None, models: Models, ask: Any, compute: Any
) -> None:
    funnel = Funnel(
        models,
        default_rules(),
        config=FunnelConfig(budgets=Budgets(features_ms=20.0, retrieval_ms=4_000.0)),
        compute=compute,
    )
    store = Store(error=error) if error else Store(delay_s=30)
    slate = serve(funnel, ask(deadline=time.perf_counter() + 10), store)
    assert slate.degradation == "stale_features"
    assert len(slate.item_ids) == 20
    assert any(note.startswith("online store") for note in slate.notes)


def test_a_feature_past_its_ttl_is_named_and_costs_the_rung(models: Models, ask: Any) -> None:
    old = UserState("u1", {"user_avg_session_length_min": Stamped(99.0, NOW_US - 3 * DAY_US)})
    slate = Funnel(models, default_rules()).run(ask(), old)
    assert slate.degradation == "stale_features"
    assert slate.stale == ("user_avg_session_length_min",)
    assert {f.name: f.value for f in slate.used}["user_avg_session_length_min"] == 12.0


def test_old_item_features_cost_the_rung_until_a_snapshot_comes(models: Models, ask: Any) -> None:
    funnel = Funnel(models, default_rules())
    later = NOW_US + 2 * DAY_US
    query = ask(now_us=later)
    assert funnel.run(query, UserState("u1")).degradation == "stale_features"
    before = funnel.run(query, UserState("u1")).digest
    names = [f.name for f in funnel.stages.items.at(later).used]
    columns = {name: np.linspace(0, 1, 200, dtype=np.float32) for name in names}
    ids = [f"i{row}" for row in range(199)] + ["unknown"]
    funnel.set_items(ItemSnapshot("s2", ids, columns, dict.fromkeys(names, later)))
    after = funnel.run(query, UserState("u1"))
    assert after.degradation == "full"
    assert after.digest != before
    assert funnel.stages.items.source == ("s2", 400)


def test_the_record_names_the_item_features_that_the_rows_were_made_of(models: Models, ask: Any) -> None:
    funnel = Funnel(models, default_rules())
    names = [f.name for f in funnel.stages.items.at(NOW_US).used]
    columns = {name: np.linspace(0, 1, 200, dtype=np.float32) for name in names}
    came = ItemSnapshot("s2", [f"i{row}" for row in range(200)], columns, dict.fromkeys(names, NOW_US))
    before = funnel.run(ask(), UserState("u1"))
    assert before.items_from == ("", 0)
    inner = funnel.stages.scorers[0]
    funnel.stages.scorers[0] = Ranker(lambda: None, inner, after=lambda: funnel.set_items(came))
    slate = funnel.run(ask(), UserState("u1"))
    assert (slate.digest, slate.items_from) == (before.digest, before.items_from)
    after = funnel.run(ask(), UserState("u1"))
    assert after.digest != before.digest
    assert after.items_from == ("s2", 400)


def test_a_session_changes_the_slate_and_its_positives_are_not_shown_again(models: Models, ask: Any) -> None:
    funnel = Funnel(models, default_rules())
    before = funnel.run(ask(), UserState("u1"))
    clicked = before.item_ids[0]
    after = funnel.run(ask(), state("u1", clicked))
    assert clicked not in after.item_ids
    assert after.item_ids != before.item_ids
    assert clicked in funnel.run(ask(k=400), state("u1", clicked, event="impression")).item_ids


def test_an_unknown_user_gets_a_full_slate_without_the_graph(models: Models, ask: Any) -> None:
    slate = Funnel(models, default_rules()).run(ask("never seen\N{SNOWMAN}"), UserState("x"))
    assert slate.degradation == "full"
    assert len(slate.item_ids) == 20
    assert not len(slate.brought["graph"].items)


@pytest.mark.parametrize("excluded", [0, 100, 390, 400])
def test_excludes_are_honoured_to_the_last_item(excluded: int, models: Models, ask: Any) -> None:
    exclude = np.random.default_rng(1).permutation(400)[:excluded].astype(np.int32)
    slate = Funnel(models, default_rules()).run(ask("nobody", k=500, exclude=exclude), UserState("nobody"))
    allowed = ~models.catalogue.is_flagged & (models.catalogue.published_us <= NOW_US)
    allowed[exclude] = False
    assert sorted(models.index.lookup_many(slate.item_ids).tolist()) == np.flatnonzero(allowed).tolist()
    if not len(slate.item_ids):
        assert "every item is excluded, seen or not allowed" in slate.notes


def test_items_do_not_appear_before_they_are_published(models: Models, ask: Any) -> None:
    early = NOW_US - 60 * DAY_US
    funnel = Funnel(models, default_rules())
    query = ask(k=500, now_us=early)
    for slate in (funnel.run(query, UserState("u3")), funnel.lowest(query, None, "test")):
        shown = models.index.lookup_many(slate.item_ids)
        assert len(shown)
        assert (models.catalogue.published_us[shown] <= early).all()


def test_debug_tells_times_counts_and_decisions_only_when_asked(models: Models, ask: Any) -> None:
    funnel = Funnel(models, default_rules())
    assert funnel.run(ask(), UserState("u1")).debug is None
    debug = funnel.run(ask(debug=True), UserState("u1")).debug
    assert debug is not None
    assert set(debug["candidates"]) == {"two_tower", "graph", "content", "trending"}
    assert debug["union"] <= 500
    assert set(debug["dropped"]) == {"flagged", "unpublished", "excluded", "seen"}
    assert debug["decisions"]


def test_each_source_alone_and_the_union_are_there_for_evaluation(models: Models, ask: Any) -> None:
    funnel = Funnel(models, None)
    alone = funnel.source_candidates(ask(), UserState("u1"), 300)
    assert {name: len(result.items) for name, result in alone.items()} == dict.fromkeys(alone, 300)
    user, union = funnel.candidates(ask(), UserState("u1"))
    rows = funnel.rows(ask(), user, union)
    assert len(rows) == len(union) <= 500
    assert np.isfinite(rows).all()
    assert rows.dtype == np.float32


def test_nothing_at_all_is_an_overload(ask: Any) -> None:
    empty = load_models({})
    funnel = Funnel(empty, default_rules())
    assert funnel.status()["best"] == "popularity"
    with pytest.raises(Overloaded, match="nothing can be served"):
        funnel.run(ask(), UserState("u1"))


class Runners:
    """Remote runners in this process, with what they were asked."""

    def __init__(self, models: Models, funnel: Funnel, ranking: Any = None) -> None:
        self._models, self._funnel, self._ranking = models, funnel, ranking
        self.asked: list[tuple[str, ...]] = []

    async def retrieve(self, sources: tuple[str, ...], query: Query, user: User, limits: Any) -> Any:
        self.asked.append(sources)
        return self._funnel.stages.retrieval.retrieve(sources, query, user, limits=limits)

    async def score(self, rows: Any, until: float) -> Any:
        if self._ranking is not None:
            return self._ranking(rows)
        return self._models.ranker.score(rows)  # type: ignore[union-attr]

    async def light(self, rows: Any, until: float) -> Any:
        return self._models.light.score(rows)  # type: ignore[union-attr]


def distributed(models: Models, ranking: Any = None, light: bool = True) -> tuple[Funnel, Runners]:
    runners = Runners(models, Funnel(models, default_rules()), ranking)
    entry = replace(models, ranker=None, light=None)
    fallback = runners if light else None
    return (
        Funnel(entry, default_rules(), remote_retrieval=runners, remote_ranking=runners, remote_fallback=fallback),
        runners,
    )


def test_remote_runners_give_the_same_slate_as_one_process(models: Models, ask: Any) -> None:
    funnel, runners = distributed(models)
    for row in range(10):
        query, known = ask(f"u{row}"), state(f"u{row}", "i3")
        remote = serve(funnel, query, Store(known))
        local = Funnel(models, default_rules()).run(query, known)
        assert (remote.item_ids, remote.scores, remote.digest) == (local.item_ids, local.scores, local.digest)
        assert remote.ranked_by == "dcn"
    assert runners.asked[:2] == [("graph", "content", "trending"), ("two_tower",)]


@pytest.mark.parametrize(
    "ranking",
    [
        lambda rows: "connection refused",
        lambda rows: np.full(len(rows), np.nan, np.float32),
        lambda rows: rows[:3, 0],
        lambda rows: 1 / 0,
    ],
)
def test_a_ranking_runner_that_is_away_or_off_gives_the_next_rung(ranking: Any, models: Models, ask: Any) -> None:
    query, known = ask(), state()
    slate = serve(distributed(models, ranking)[0], query, Store(known))
    assert slate.degradation == "simple_ranking"
    assert slate.ranked_by in ("logistic", "retrieval")
    assert any(note.startswith("dcn: ") for note in slate.notes)
    without = serve(distributed(models, lambda rows: "away", light=False)[0], query, Store(known))
    assert (without.degradation, without.ranked_by) == ("simple_ranking", "retrieval")


def test_a_query_without_a_deadline_has_no_source_budget(models: Models, ask: Any) -> None:
    funnel = Funnel(models, None, config=FunnelConfig(budgets=Budgets(retrieval_ms=0.0)))
    assert not funnel.run(ask(deadline=math.inf), state()).notes
    assert len(funnel.run(ask(deadline=time.perf_counter() + 60), state()).notes) == 5


@pytest.mark.parametrize(
    ("aim", "ranked_by"), [("full", "dcn"), ("simple_ranking", "logistic"), ("retrieval", "retrieval")]
)
@pytest.mark.parametrize("apart", [False, True])
def test_a_request_may_start_at_a_cheaper_ranker(
    aim: Any, ranked_by: str, apart: bool, models: Models, ask: Any
) -> None:
    funnel = distributed(models)[0] if apart else Funnel(models, default_rules())
    slate = serve(funnel, ask(aim=aim), Store(state()))
    assert (slate.ranked_by, len(slate.item_ids)) == (ranked_by, 20)
    assert sum("the aim is" in note for note in slate.notes) == {"dcn": 0, "logistic": 1, "retrieval": 2}[ranked_by]


def test_a_request_that_starts_at_the_lists_never_waits_for_the_compute_thread(models: Models, ask: Any) -> None:
    async def never(work: Callable[[], Any], *, begun: bool = False) -> Any:
        raise AssertionError("asked for the compute thread")

    listed = PrecomputedList(("i8", "i4"), (0.9, 0.8), "s1", "streamrec:1", NOW_US, "all")
    funnel = Funnel(models, default_rules(), compute=never)
    assert serve(funnel, ask(aim="lists"), Store(replace(state(), precomputed=listed))).degradation == "batch"
    assert serve(funnel, ask("nobody", aim="lists")).degradation == "popularity"


def test_a_request_that_starts_at_what_is_at_hand_reads_nothing(models: Models, ask: Any) -> None:
    class Unread:
        async def read_user(self, user_id: str) -> UserState:
            raise AssertionError("read the online store")

    listed = PrecomputedList(("i8", "i4"), (0.9, 0.8), "s1", "streamrec:1", NOW_US, "all")
    funnel = Funnel(models, default_rules())
    full = serve(funnel, ask(), Store(replace(state(), precomputed=listed)))
    last, popular = (serve(funnel, ask(user, aim="at_hand"), Unread()) for user in ("u1", "nobody"))
    assert (last.degradation, set(last.item_ids)) == ("cached", set(full.item_ids))
    assert popular.degradation == "popularity"
    assert (full.aim, last.aim, popular.aim) == ("full", "at_hand", "at_hand")
    assert not any("store" in note for note in (*last.notes, *popular.notes))


def test_nothing_more_is_begun_for_a_request_that_was_given_up(models: Models, ask: Any, compute: Any) -> None:
    funnel = Funnel(models, default_rules(), compute=compute)
    begun, let_go, ranked = threading.Event(), threading.Event(), []

    def hold() -> None:
        begun.set()
        let_go.wait(20)

    funnel.stages.retrieval.sources["two_tower"] = Wrapped(funnel.stages.retrieval.sources["two_tower"], hold)
    inner = funnel.stages.scorers[0]
    funnel.stages.scorers[0] = Ranker(lambda: ranked.append(True), inner)

    async def leave() -> None:
        asked = asyncio.ensure_future(funnel.recommend(ask(deadline=time.perf_counter() + 60), Store()))
        while not begun.is_set():
            await asyncio.sleep(0.001)
        asked.cancel()
        await asyncio.gather(asked, return_exceptions=True)
        let_go.set()
        await compute(lambda: None)  # the thread has come to the end of what it had begun

    asyncio.run(leave())
    assert ranked == []
    assert funnel.not_begun == {"merge": 1}


class Ranker:
    """A scorer that does something first, or last."""

    def __init__(self, before: Callable[[], object], inner: Any, after: Callable[[], object] = lambda: None) -> None:
        self._before, self._inner, self._after = before, inner, after
        self.name, self.ready = inner.name, True

    def score(self, candidates: Any, rows: Any) -> Any:
        self._before()
        scores = self._inner.score(candidates, rows)
        self._after()
        return scores


def test_a_request_whose_time_was_up_in_the_queue_begins_no_source(models: Models, ask: Any) -> None:
    funnel = Funnel(models, default_rules())
    slate = funnel.run(ask(deadline=time.perf_counter() - 1), state())
    assert slate.degradation == "popularity"
    assert not slate.brought
    assert "no computed slate: the deadline passed" in slate.notes


def test_a_shortened_deadline_leaves_less_time_for_each_source(models: Models, ask: Any) -> None:
    funnel = Funnel(models, None, config=FunnelConfig(budgets=Budgets(0, 1, 4_000, 1, 1, 1)))
    funnel.warm()
    funnel.stages.retrieval.sources["graph"] = Wrapped(funnel.stages.retrieval.sources["graph"], lambda: busy(0.2))
    assert not any("late" in n for n in funnel.run(ask(deadline=time.perf_counter() + 60), state()).notes)
    late = funnel.run(ask(deadline=time.perf_counter() + 0.6 * 0.2), state())
    assert late.notes
