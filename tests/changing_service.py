"""A service in this process, whose catalogue, item counts, item features, rules and users change all the time."""

import json
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from benchmarks.reference_world import COUNTRIES, DEVICES, item_id, user_id, write_world
from bentos.catalogue.store import CatalogueStore
from bentos.recommender.assemble import load_models
from bentos.recommender.bundles import pinned
from bentos.recommender.front import Front
from bentos.recommender.request_ids import new_request_id
from bentos.recommender.rules import default_rules
from bentos.recommender.runtime import Answer, Runtime
from bentos.telemetry.item_counts import write_counts
from bentos.telemetry.states import keep_counts
from contracts.errors import Unreachable
from contracts.front import FrontOverrides
from contracts.http import RecommendationRequest
from contracts.live_items import ItemChange, ItemFacts
from contracts.serving import Aim
from contracts.settings import Settings
from features.item_counts import ItemCounts
from features.online.base import Interaction, ItemSnapshot, PrecomputedList, Stamped, UserState
from features.registry import REGISTRY
from registry.artifacts import MANIFEST, Kind

USERS, ITEMS = 60, 400
HOUR_US, DAY_US = 3_600_000_000, 86_400_000_000
AIMS: tuple[Aim, ...] = ("full", "simple_ranking", "retrieval", "lists", "at_hand")
RULES = default_rules().model_copy(update={"version": "other", "promoted_boost": 1.7, "category_cap": 3})


def write_worlds(make: Callable[[str], Path]) -> Mapping[str, Path]:
    """Bundles by the clock that they are served on; `other`: another fit over the same items."""
    made = {}
    for name, seed in (("log_end", 7), ("wall", 7), ("other", 8)):
        made[name] = make(name)
        for folder in write_world(made[name], users=USERS, items=ITEMS, seed=seed).values():
            manifest = json.loads((folder / MANIFEST).read_text())
            manifest["clock"] = "wall" if name == "wall" else "log_end"
            (folder / MANIFEST).write_text(json.dumps(manifest))
    return made


class Away:
    """A store that does not answer."""

    waits = True

    async def read_user(self, user_id: str) -> UserState:
        raise Unreachable("away")


@dataclass(frozen=True)
class Behind:
    """A store whose stream ended 30 hours ago: what users did last is too old to be a session."""

    inner: Any
    waits = True

    async def read_user(self, user_id: str) -> UserState:
        state = await self.inner.read_user(user_id)
        last = tuple(replace(i, timestamp_us=i.timestamp_us - 30 * HOUR_US) for i in state.last)
        watermark_us = last[0].timestamp_us if last else None
        return replace(state, last=last, watermark_us=watermark_us)


class Service:
    """What a process does between start and drain, one step at a time, so that nothing hangs on the clock's mercy."""

    def __init__(self, home: Path, world: Path, seed: int = 0, **settings: Any) -> None:
        home.mkdir(parents=True, exist_ok=True)
        self.home, self.world = home, world
        fixed = {"online_store": "memory", "log_candidates": 0.2, "deadline_ms": 60_000.0, "patience_ms": 60_000.0}
        budgets = {"features_budget_ms": 10_000.0, "retrieval_budget_ms": 10_000.0, "ranking_budget_ms": 10_000.0}
        self.settings = Settings(home=home, bundles=world, **(fixed | budgets | settings))
        pins = pinned(None, world)
        self.runtime = Runtime(self.settings, pins, load_models(pins.folders))
        self.store = self.runtime._store
        self.catalogue = CatalogueStore(home)
        self.rng = np.random.default_rng(seed)
        self._put = 0
        self._steps: list[Callable[[], Awaitable[None]]] = []
        self._counted_us = time.time_ns() // 1000

    @property
    def now_us(self) -> int:
        return self.runtime.models.now_us()

    async def ask(self, aim: Aim = "full", front: Front | None = None, **request: Any) -> Answer:
        """An answer that was recorded."""
        asked = RecommendationRequest(**({"user_id": "u1", "k": 20} | request))
        answer = await self.runtime.recommend(asked, new_request_id(), time.perf_counter(), front, aim)
        self.runtime.record(answer)
        return answer

    async def ask_at_random(self) -> Answer:
        rng = self.rng
        some = [item_id(row) for row in rng.choice(ITEMS, rng.choice([0, 3, 40]), replace=False)]
        front, aim = None, str(rng.choice(AIMS, p=[0.8, 0.1, 0.05, 0.03, 0.02]))
        if rng.random() < 0.2:
            off = (str(rng.choice(["graph", "content", "trending", "two_tower"])),) if rng.random() < 0.5 else ()
            overrides = FrontOverrides.of(RULES if rng.random() < 0.5 else None, off)
            front = Front(new_request_id(), overrides=json.dumps(_plain(overrides)).encode())
        reads, chance = self.runtime._reads, rng.random()
        if chance < 0.1:
            self.runtime._reads = Away() if chance < 0.03 else Behind(reads)  # type: ignore[assignment]
        try:
            return await self.ask(
                aim,
                front,
                user_id=user_id(int(rng.integers(0, USERS + 10))),  # ten of them nobody knows
                k=int(rng.choice([1, 5, 20, 50, 200])),
                context={"country": str(rng.choice([*COUNTRIES, "XX"])), "device": str(rng.choice([*DEVICES, ""]))},
                exclude=[*some, "of another catalogue"] if some else [],
            )
        finally:
            self.runtime._reads = reads

    async def change_something(self) -> None:
        """Each thing once in every six, in any order."""
        if not self._steps:
            steps = [self.put_items, self.flag, self.count, self.materialise, self.meet, self.publish]
            self._steps = [steps[at] for at in self.rng.permutation(len(steps))]
        await self._steps.pop()()

    async def put_items(self) -> None:
        """New items, of known and of new categories, and other facts of old ones."""
        ids = [f"new{self._put + n}" for n in range(3)] + [item_id(int(self.rng.integers(ITEMS)))]
        self._put += 3
        changes = [
            ItemChange(
                name,
                "put",
                time.time_ns() // 1000,
                ItemFacts(
                    f"category {self.rng.integers(15)}",
                    f"creator {self.rng.integers(60)}",
                    float(self.rng.uniform(1, 90)),
                    None if self.rng.random() < 0.7 else self.now_us - int(self.rng.integers(0, 30 * DAY_US)),
                    bool(self.rng.random() < 0.3),
                ),
            )
            for name in (str(id_) for id_ in self.rng.permutation(ids))
        ]
        self.catalogue.apply(changes)
        await self.follow()

    async def flag(self) -> None:
        """Flags and removals, which hold without new models."""
        chosen = self.rng.integers(0, ITEMS, 4)
        flagged = bool(self.rng.random() < 0.7)
        changes = [ItemChange(item_id(int(row)), "flag", 1, flagged=flagged) for row in chosen[:3]]
        self.catalogue.apply([*changes, ItemChange(item_id(int(chosen[3])), "remove", 1)])
        await self.runtime._upkeep.look_at_catalogue()

    async def count(self) -> None:
        """As the process does that counts: kept first, then laid down for all."""
        self._counted_us += 30_000_000
        counts = _counts(self.rng, self._counted_us, self._put)
        keep_counts(self.home, counts, 1 << 30)
        write_counts(self.home, counts)
        await self.follow()

    async def materialise(self) -> None:
        """Item features of the store; some are too old, some of items that come into the catalogue later."""
        names = [d.name for d in REGISTRY.of("item") if d.kind != "on_demand"]
        ids = [*(item_id(row) for row in range(ITEMS - 5)), *(f"new{n}" for n in range(self._put + 6)), "of nobody"]
        columns = {n: self.rng.gamma(2.0, 3.0, len(ids)).astype(np.float32) for n in names if "embedding" not in n}
        columns["item_embedding_128d"] = self.rng.standard_normal((len(ids), 128)).astype(np.float32)
        stamps = {name: self.now_us - int(self.rng.integers(0, 8 * HOUR_US)) for name in names}
        version = f"s{self.rng.integers(2**40)}"
        self.store.write_item_snapshot(ItemSnapshot(version, ids, columns, stamps))
        await self.runtime._upkeep.refresh_items()

    async def meet(self) -> None:
        """Users do things, and their features are computed; some long ago."""
        for row in self.rng.integers(0, USERS + 5, 12):
            user = user_id(int(row))
            self.store.write_users({user: _features(self.rng, self.now_us - int(self.rng.integers(0, 60 * HOUR_US)))})
            for _ in range(int(self.rng.integers(0, 5))):
                at_us = self.now_us - int(self.rng.integers(0, 40 * HOUR_US))
                what = str(self.rng.choice(["click", "view", "purchase"]))
                self.store.append_interactions(
                    [(user, Interaction(item_id(int(self.rng.integers(ITEMS))), what, at_us))]
                )

    async def publish(self) -> None:
        ids = tuple(item_id(int(row)) for row in self.rng.choice(ITEMS, 30, replace=False))
        made = PrecomputedList(ids, tuple(1 / (n + 1) for n in range(30)), "lists-1", "m", self.now_us, "all")
        self.store.publish_lists("lists-1", {user_id(row): made for row in range(0, USERS, 2)})

    async def follow(self) -> None:
        upkeep = self.runtime._upkeep
        await upkeep.look_at_catalogue()
        upkeep._follow_from = 0.0  # it rests between passes; a test has no time for that
        await upkeep.follow_catalogue()

    async def close(self) -> None:
        self.catalogue.close()
        await self.runtime.close()


def _counts(rng: np.random.Generator, now_us: int, put: int) -> ItemCounts:
    rows = int(rng.integers(20, 120))
    names = [item_id(int(row)) for row in rng.integers(0, ITEMS, rows)] + [f"new{n}" for n in range(put)]
    n = rng.integers(0, 50, len(names))
    return ItemCounts(
        now_us,
        names,
        [str(event) for event in rng.choice(["click", "impression", "purchase"], len(names))],
        np.full(len(names), -1, np.int16),
        rng.gamma(1.0, 5.0, len(names)),
        n.astype(np.int64),
        np.zeros(len(names), np.int64),
        np.zeros(len(names)),
        now_us - int(rng.integers(0, 7 * DAY_US)),
    )


def _features(rng: np.random.Generator, at_us: int) -> dict[str, Stamped]:
    shares = rng.dirichlet(np.ones(4))
    values: dict[str, Any] = {
        "user_embedding_128d": rng.standard_normal(128).astype(np.float32),
        "user_avg_session_length_min": float(rng.gamma(2.0, 5.0)),
        "user_category_preferences": {f"category {n}": float(share) for n, share in enumerate(shares)},
        "user_positives_30d": float(rng.integers(0, 40)),
        "user_tenure_days": float(rng.uniform(0, 900)),
    }
    return {name: Stamped(value, at_us) for name, value in values.items()}


def _plain(overrides: FrontOverrides) -> dict[str, Any]:
    found: dict[str, Any] = msgspec.to_builtins(overrides)
    return found


def folders(world: Path) -> dict[Kind, Path]:
    kinds: tuple[Kind, ...] = ("retrieval", "ranking", "fallback")
    return {kind: world / kind for kind in kinds}
