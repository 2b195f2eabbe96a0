"""What the live catalogue does to the answers of one serving process, rung by rung."""

import asyncio
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.reference_world import NOW_US, item_id
from bentos.catalogue.store import CatalogueStore
from bentos.recommender.funnel import Funnel
from bentos.recommender.live import LiveCatalogue
from bentos.recommender.models import Models
from bentos.recommender.rules import default_rules
from bentos.recommender.statistics import Statistics
from bentos.recommender.types import Query, Slate
from bentos.telemetry.item_counts import counts_path, refresh
from contracts.events import Event
from contracts.live_items import ItemChange, ItemFacts
from features.online.base import Interaction, PrecomputedList, UserState
from features.online.memory import MemoryStore
from features.ranking import ITEM_COLUMNS

RUNGS = ("dcn", "logistic", "retrieval", "batch", "cached", "popularity")


class Process:
    """A serving process without HTTP: `follow` is what its background tasks do."""

    def __init__(self, home: Path, models: Models) -> None:
        self.store = MemoryStore()
        self.live = LiveCatalogue(home, models)
        self.funnel = Funnel(self.live.begin(), default_rules())
        self.statistics = Statistics(home)
        self.home = home

    def follow(self) -> None:
        self.live.look()
        self.statistics.look()
        if self.live.behind or self.statistics.behind:
            models = self.live.rebuild() if self.live.behind else self.live.models
            made = self.statistics.apply(models, *self.funnel.stages.items.snapshot)
            self.funnel = (
                self.funnel.over(models)
                if made is None
                else self.funnel.over(made.models, made.columns, made.moment_us)
            )
            self.live.adopt()

    def happen(self, item: str, event: str, times: int, value: float | None = None) -> None:
        """So many events with an item just now; the consumer has counted them."""
        now = time.time_ns() // 1000
        before = self.store.position("log")
        sent = [Event(f"{before}-{n}", f"v{n}", item, event, now, now, value=value) for n in range(times)]
        assert self.store.take_in("log", sent, after=before, to=f"{before}+")
        refresh(self.home, self.store, time.time_ns() // 1000)

    def feature(self, name: str, item: str) -> float:
        """As the ranker reads it: counts in logarithms."""
        block = self.funnel.stages.items.at(NOW_US).block
        return float(block.gathered[self.live.models.index.lookup(item), ITEM_COLUMNS.index(name)])

    def ask(self, rung: str, user: str = "u1", k: int = 20, **fields: Any) -> Slate:
        deadline = math.inf
        if rung == "popularity":
            return self.funnel.popularity(self.query(user, k, deadline, **fields))
        aim = {"dcn": "full", "logistic": "simple_ranking", "retrieval": "retrieval"}.get(rung, "lists")
        if rung == "cached":  # remembered from a full answer, and no list is published
            self.store.publish_lists("none", {})
            self.ask("dcn", user, k)
        if rung == "batch":
            ids = tuple(item_id(row) for row in range(100, 160))
            made = PrecomputedList(ids, tuple(1 / (n + 1) for n in range(60)), "s1", "m1", NOW_US, "all")
            self.store.publish_lists("s1", {user: made})
        slate = asyncio.run(self.funnel.recommend(self.query(user, k, deadline, aim=aim, **fields), self.store))
        assert slate.ranked_by == rung, slate.notes
        return slate

    def query(self, user: str, k: int, deadline: float, **fields: Any) -> Query:
        return Query("r1", user, k, self.live.models.now_us(), deadline, **fields)


@pytest.fixture
def store(home: Path) -> Iterator[CatalogueStore]:
    made = CatalogueStore(home)
    yield made
    made.close()


@pytest.fixture
def process(home: Path, models: Models) -> Process:
    return Process(home, models)


def put(item: str, category: str, **facts: Any) -> ItemChange:
    return ItemChange(item, "put", time.time_ns() // 1000, ItemFacts(category, **facts))


def take_down(kind: str, item: str) -> ItemChange:
    return ItemChange(item, "remove" if kind == "remove" else "flag", 1, flagged=None if kind == "remove" else True)


@pytest.mark.parametrize("kind", ["flag", "remove"])
@pytest.mark.parametrize("rung", RUNGS)
def test_what_is_taken_down_leaves_the_rung_and_comes_back_when_it_may(
    process: Process, store: CatalogueStore, rung: str, kind: str
) -> None:
    before = process.ask(rung).item_ids
    gone = before[:3]
    store.apply([take_down(kind, item) for item in gone])
    process.live.look()  # no new models: flags hold in those that serve
    after = process.ask(rung).item_ids
    assert not set(gone) & set(after)
    assert len(after) == len(before)
    facts = process.live.models.catalogue
    if kind == "flag":
        store.apply([ItemChange(item, "flag", 2, flagged=False) for item in gone])
    else:
        rows = [facts.index.lookup(item) for item in gone]
        store.apply([put(i, facts.categories[facts.category[r]]) for i, r in zip(gone, rows, strict=True)])
    process.follow()
    back = process.ask(rung)
    if kind == "flag":
        assert back.item_ids == before
    else:
        assert process.ask(rung, k=400).item_ids


def test_an_item_that_the_bento_was_built_to_withhold_is_shown_when_the_flag_is_taken_back(
    process: Process, store: CatalogueStore
) -> None:
    flagged = process.live.models.catalogue.is_flagged.nonzero()[0]
    ids = {process.live.models.catalogue.item_ids[row] for row in flagged.tolist()}
    assert not ids & set(process.ask("dcn", k=400).item_ids)
    store.apply([ItemChange(item, "flag", 2, flagged=False) for item in ids])
    process.follow()
    assert ids & set(process.ask("dcn", k=400).item_ids)


def test_flags_that_change_together_are_seen_together(process: Process, store: CatalogueStore) -> None:
    """A stage that looks at flags while more of them come has those of one version, or the answer is in no replay."""
    held = process.live.models.catalogue.is_flagged
    before = held.copy()
    store.apply([ItemChange(item, "flag", 2, flagged=True) for item in ("i3", "i5", "i8")])
    process.live.look()
    assert (held == before).all()
    assert process.live.models.catalogue.is_flagged[[3, 5, 8]].all()


def test_a_new_item_comes_through_content_and_is_ranked_by_the_deep_ranker(
    process: Process, store: CatalogueStore
) -> None:
    store.apply([put("new", "category 3", creator_id="creator 1", price=9.5)])
    process.follow()
    slate = process.ask("dcn", k=400)
    assert slate.degradation == "stale_features" or slate.degradation == "full"
    assert slate.notes == ()
    assert slate.sources[slate.item_ids.index("new")] == ("content",)
    store.apply([ItemChange("new", "flag", 1, flagged=True)])
    process.live.look()
    for rung in ("dcn", "logistic", "retrieval"):
        assert "new" not in process.ask(rung, k=400).item_ids


def test_a_new_item_of_an_unknown_category_and_creator_is_served_too(process: Process, store: CatalogueStore) -> None:
    store.apply([put("new", "no such category", creator_id="no such creator"), put("bare", "")])
    process.follow()
    slate = process.ask("dcn", k=420)
    assert {"new", "bare"} <= set(slate.item_ids)
    catalogue = process.live.models.catalogue
    assert catalogue.categories[catalogue.category[catalogue.index.lookup("new")]] == "no such category"


def test_a_new_item_that_a_user_has_met_is_not_shown_again_and_does_not_trouble_the_models(
    process: Process, store: CatalogueStore
) -> None:
    store.apply([put("new", "category 3")])
    process.follow()
    process.store.append_interactions([("u1", Interaction("new", "click", NOW_US - 1))])
    slate = process.ask("dcn", k=400)
    assert "new" not in slate.item_ids
    assert slate.notes == ()
    assert any("two_tower" in sources for sources in slate.sources)
    assert "new" in process.ask("dcn", user="u2", k=400).item_ids
    excluded = process.live.models.index.lookup_many(["new"])
    assert "new" not in process.ask("dcn", user="u2", k=400, exclude=excluded).item_ids


def test_a_new_item_is_not_shown_before_its_time(process: Process, store: CatalogueStore) -> None:
    store.apply([put("later", "category 3", published_us=NOW_US + 1), put("now", "category 3", published_us=NOW_US)])
    process.follow()
    shown = process.ask("dcn", k=400).item_ids
    assert "now" in shown
    assert "later" not in shown


def test_facts_of_a_known_item_are_those_last_put_and_its_publication_stays_unless_it_is_said(
    process: Process, store: CatalogueStore
) -> None:
    before = process.live.models.catalogue
    store.apply([put("i7", "category 3", price=123.0, is_promoted=True)])
    process.follow()
    catalogue = process.live.models.catalogue
    assert (catalogue.categories[catalogue.category[7]], catalogue.price[7]) == ("category 3", 123.0)
    assert catalogue.is_promoted[7]
    assert catalogue.creator[7] == -1
    assert catalogue.published_us[7] == before.published_us[7]
    assert len(catalogue) == len(before)
    store.apply([put("i7", "category 3", published_us=5)])
    process.follow()
    assert process.live.models.catalogue.published_us[7] == 5


def test_rows_that_were_given_out_stay_and_all_processes_number_alike(
    process: Process, store: CatalogueStore, home: Path, models: Models
) -> None:
    store.apply([put("b", "category 1"), put("i3", "category 1"), put("a", "category 1")])
    process.follow()
    assert process.live.models.index.lookup_many(["b", "a"]).tolist() == [400, 401]
    store.apply([ItemChange("b", "remove", 1), put("c", "category 1"), put("a", "category 2")])
    store.apply([put("b", "category 2")])
    process.follow()
    late = LiveCatalogue(home, models).begin()
    for known in (process.live.models, late):
        assert known.index.lookup_many(["b", "a", "c"]).tolist() == [400, 401, 402]
        assert [known.catalogue.item_ids[row] for row in (3, 400, 401, 402)] == ["i3", "b", "a", "c"]


def test_a_flag_that_comes_while_new_models_are_made_holds_in_old_and_new(
    process: Process, store: CatalogueStore
) -> None:
    item = process.ask("dcn").item_ids[0]
    store.apply([put("new", "category 3")])
    process.live.look()
    models = process.live.rebuild()
    store.apply([ItemChange(item, "flag", 1, flagged=True), ItemChange("new", "flag", 1, flagged=True)])
    process.live.look()
    assert item not in process.ask("dcn").item_ids
    process.funnel = process.funnel.over(models)
    process.live.adopt()
    assert not {item, "new"} & set(process.ask("dcn", k=400).item_ids)


def test_last_slates_survive_new_models(process: Process, store: CatalogueStore) -> None:
    remembered = process.ask("cached").item_ids
    store.apply([put("new", "category 3")])
    process.follow()
    slate = asyncio.run(process.funnel.recommend(process.query("u1", 20, math.inf, aim="lists"), process.store))
    assert (slate.ranked_by, slate.item_ids) == ("cached", remembered)


def test_a_file_that_breaks_or_vanishes_takes_nothing_back_and_is_named(
    process: Process, store: CatalogueStore, home: Path, models: Models
) -> None:
    item = process.ask("dcn").item_ids[0]
    store.apply([ItemChange(item, "flag", 1, flagged=True)])
    process.follow()
    assert process.live.component.state == "healthy"
    store.close()
    for file in home.glob("catalogue.db*"):
        file.unlink()
    process.follow()
    assert process.live.component.state == "degraded"
    assert "is gone" in process.live.component.detail
    assert item not in process.ask("dcn").item_ids
    (home / "catalogue.db").write_bytes(b"nothing that SQLite knows" * 200)
    process.follow()
    assert process.live.component.state == "degraded"
    assert item not in process.ask("dcn").item_ids
    late = LiveCatalogue(home, models)
    late.begin()
    assert not late.loaded  # which items were taken down cannot be known: it must not serve
    assert late.component.state == "unhealthy"


def test_a_state_of_the_store_that_knows_the_new_item_in_a_published_list_shows_it(
    process: Process, store: CatalogueStore
) -> None:
    store.apply([put("new", "category 3")])
    process.follow()
    made = PrecomputedList(("new", "i1"), (0.9, 0.8), "s1", "m1", NOW_US, "all")
    process.store.publish_lists("s2", {"u1": made})
    slate = process.funnel.lowest(process.query("u1", 5, math.inf), UserState("u1", precomputed=made), "a test")
    assert slate.item_ids[0] == "new"


def test_a_new_item_that_is_liked_trends_and_its_statistics_are_the_rankers(
    process: Process, store: CatalogueStore
) -> None:
    store.apply([put("new", "category 3")])
    process.follow()
    process.happen("new", "impression", 180)
    process.happen("new", "click", 5_000)
    process.follow()
    slate = process.ask("dcn", user="u2", k=400)
    assert "trending" in slate.sources[slate.item_ids.index("new")]
    assert "content" in slate.sources[slate.item_ids.index("new")]
    # 5,000 clicks just now, none before; a click for each impression, shrunk by 20 impressions at 2 %
    assert process.feature("log_item_trending_score", "new") == pytest.approx(math.log(5_001), rel=1e-3)
    assert process.feature("item_ctr_7d", "new") == pytest.approx((180 + 0.4) / 200, rel=1e-3)
    store.apply([ItemChange("new", "flag", 1, flagged=True)])
    process.live.look()
    assert "new" not in process.ask("dcn", user="u2", k=400).item_ids


def test_statistics_of_known_items_move_the_order_of_trending_and_content(
    process: Process, models: Models, home: Path
) -> None:
    retrieval = models.retrieval
    assert retrieval is not None
    assert retrieval.trending is not None
    catalogue = models.catalogue
    item = catalogue.item_ids[int(np.where(catalogue.is_flagged, np.inf, retrieval.trending).argmin())]
    before = process.feature("log_item_trending_score", item)
    process.happen(item, "purchase", 9_000)
    process.follow()
    trending = process.funnel.models.retrieval
    assert trending is not None
    assert trending.trending is not None
    assert process.funnel.models.catalogue.item_ids[int(trending.trending.argmax())] == item
    assert trending.content_items is not None
    row = models.index.lookup(item)
    assert trending.content_items[row] > 0.9  # nearly all that its category has had this week
    assert process.feature("log_item_trending_score", item) > before


def test_counts_that_cannot_be_read_change_nothing_and_are_named(process: Process, home: Path) -> None:
    process.happen("i5", "click", 3)
    process.follow()
    before = process.feature("log_item_trending_score", "i5")
    counts_path(home).write_bytes(b"PK\x03\x04 and then nothing")
    process.follow()
    assert process.statistics.component.state == "degraded"
    assert process.feature("log_item_trending_score", "i5") == before
    process.happen("i5", "click", 3)
    process.follow()
    assert process.statistics.component.state == "healthy"
    assert process.feature("log_item_trending_score", "i5") > before
