"""Newcomers of a test window: what is past is past in every setup."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from bentos.recommender.types import Query
from contracts.ids import IdIndex
from features.online.base import UserState
from tests.unit.study.shop import DAY_US, write_shop
from training.interactions import read_items, read_log
from training.study.cold import AFTER, ColdUsers, cold_users

CUT = 10 * DAY_US
IDS = [f"i{n:02d}" for n in range(30)]


@dataclass
class Oracle:
    """Shows each user what they will take up, but never what the request excludes or the session holds, as serving
    does not either."""

    wishes: Mapping[str, Sequence[str]]
    models: Any = None

    def __post_init__(self) -> None:
        self.models = SimpleNamespace(index=IdIndex.build(IDS))
        self.sessions: list[UserState] = []

    def run(self, query: Query, state: UserState) -> SimpleNamespace:
        if state.last:
            self.sessions.append(state)
        met = {IDS[row] for row in query.exclude} | {one.item_id for one in state.last}
        return SimpleNamespace(item_ids=tuple(i for i in self.wishes[query.user_id] if i not in met))


def asked(
    folder: Path, events: Sequence[tuple[str, str, int]], shown: Sequence[tuple[str, str, int]] = ()
) -> tuple[ColdUsers, Oracle]:
    """shown: impressions."""
    known = [("old", IDS[n], n * DAY_US) for n in range(3)]
    what = ["view"] * len(shown) + ["purchase"] * (len(known) + len(events))
    config = write_shop(folder, [*shown, *known, *events], [{"item_id": name} for name in IDS], event=what)
    wishes: dict[str, list[str]] = {}
    for user, item, _ in events:
        wishes.setdefault(user, []).append(item)
    oracle = Oracle(wishes)
    log = read_log(folder, config, read_items(folder, CUT), CUT)
    found = cold_users(folder, config, log, oracle, np.arange(30), CUT, CUT + 10 * DAY_US, seed=0)  # type: ignore[arg-type]
    return found, oracle


def test_lines_of_one_invoice_are_past_together(tmp_path: Path) -> None:
    """Six things bought at once, and four a day later: those four are what is to be found, session or not."""
    basket = [("new", IDS[10 + n], CUT + DAY_US) for n in range(6)]
    later = [("new", IDS[20 + n], CUT + 2 * DAY_US) for n in range(4)]
    found, oracle = asked(tmp_path / "shop", [*basket, *later])
    (session,) = oracle.sessions
    assert {one.item_id for one in session.last} == set(IDS[10:16])
    setups = [name for name in found.setups if name.startswith(f"after {AFTER} wishes")]
    assert len(setups) == 3
    for name in setups[:2]:
        assert found.setups[name]["recall@10"].value == 1.0, name
    assert found.setups["context alone"]["recall@10"].value == 1.0  # ten wishes, ten places, nothing met yet


def test_who_took_up_everything_in_one_basket_has_nothing_left_to_be_asked_for(tmp_path: Path) -> None:
    one_basket = [("all at once", IDS[10 + n], CUT + DAY_US) for n in range(6)]
    two = [("twice", IDS[20 + n], CUT + (1 + n // 3) * DAY_US) for n in range(6)]
    found, _ = asked(tmp_path / "shop", [*one_basket, *two])
    assert found.found == 2
    assert found.setups["context alone"]["ndcg@10"].n == 2
    assert {
        found.setups[f"after {AFTER} wishes, {how}"]["ndcg@10"].n for how in ("popularity", "with the session")
    } == {1}


@pytest.mark.parametrize("wishes", [3, 6])
def test_nobody_with_a_wish_left_is_no_setup(tmp_path: Path, wishes: int) -> None:
    found, _ = asked(tmp_path / "shop", [("new", IDS[10 + n], CUT + DAY_US) for n in range(wishes)])
    assert set(found.setups) == {"context alone", "popularity"}


def test_who_was_only_shown_things_is_as_new_as_who_never_came(tmp_path: Path) -> None:
    """The protocol asks those with a wish before the cut; all others are asked here."""
    shown = [("shown", IDS[n], DAY_US + n) for n in range(5)]
    wishes = [(user, IDS[20 + n], CUT + (1 + n) * DAY_US) for user in ("shown", "stranger") for n in range(5)]
    found, oracle = asked(tmp_path / "shop", [*wishes, ("old", IDS[29], CUT + DAY_US)], shown)
    assert found.found == 2
    assert found.setups["context alone"]["ndcg@10"].n == 2
    sessions = {state.user_id: {one.item_id for one in state.last} for state in oracle.sessions}
    assert set(IDS[:5]) <= sessions["shown"]  # with the session, what it was shown is known too
    assert sessions["stranger"] == set(IDS[20:23])
