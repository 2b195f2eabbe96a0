"""The full size (1,000 moments of both kinds) on a small world, and online paths broken on purpose."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from contracts.errors import DataError
from features.online.base import Interaction, OnlineStore, Stamped
from features.online.memory import MemoryStore
from features.online.sqlite import SqliteStore
from features.parity import parity
from features.registry import REGISTRY


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
def test_online_and_offline_agree_value_by_value_at_a_thousand_moments(world: Path, tmp_path: Path, kind: str) -> None:
    store: OnlineStore = MemoryStore() if kind == "memory" else SqliteStore(tmp_path / "store")
    result = parity(world, store, moments=1_000, seed=3)
    store.close()
    assert result.mismatches == []
    assert result.user_moments == 1_000
    assert result.item_moments >= 180  # 20 moments of all 9 items
    compared = {d.name for d in REGISTRY if d.kind != "on_demand"} - {"item_embedding_128d"}
    assert set(result.values) == compared
    # The run was worth something: values that are not defaults, defaults, and values past their TTL.
    assert 0 < result.defaults["user_positives_30d"] < 500
    assert result.stale["user_positives_30d"] > 10


class ForgetsTies(MemoryStore):
    """A plausible bug: of two events of one moment only one is kept."""

    def append_interactions(self, rows: Sequence[tuple[str, Interaction]]) -> None:
        super().append_interactions(list({(user, i.timestamp_us): (user, i) for user, i in rows}.values()))


class StampsWithTheFuture(MemoryStore):
    """A plausible bug: values look fresher than they are."""

    def write_users(self, rows: Mapping[str, Mapping[str, Stamped]]) -> None:
        later = 6 * 3_600_000_000
        super().write_users(
            {u: {n: Stamped(s.value, s.timestamp_us + later) for n, s in f.items()} for u, f in rows.items()}
        )


class RoundsScores(MemoryStore):
    """A plausible bug: another computation on one side."""

    def write_users(self, rows: Mapping[str, Mapping[str, Stamped]]) -> None:
        def rounded(name: str, stamped: Stamped) -> Stamped:
            return Stamped(round(stamped.value), stamped.timestamp_us) if name == "user_tenure_days" else stamped

        super().write_users({u: {n: rounded(n, s) for n, s in f.items()} for u, f in rows.items()})


@pytest.mark.parametrize(
    ("broken", "feature"),
    [
        (ForgetsTies, "user_last_10_interactions"),
        (StampsWithTheFuture, "user_positives_30d"),
        (RoundsScores, "user_tenure_days"),
    ],
)
def test_a_broken_online_path_is_named(world: Path, broken: type[MemoryStore], feature: str) -> None:
    result = parity(world, broken(), moments=200, seed=0)
    assert feature in {m.feature for m in result.mismatches}
    first = next(m for m in result.mismatches if m.feature == feature)
    assert first.entity == "user"
    assert first.id.startswith("u")


def test_the_same_seed_compares_the_same_moments(world: Path) -> None:
    one, other = (parity(world, RoundsScores(), moments=50, seed=9) for _ in range(2))
    assert one.mismatches == other.mismatches != []


def test_an_empty_log_is_a_clear_error(write: Any) -> None:
    with pytest.raises(DataError, match="no events"):
        parity(write([], {"a": "all"}), MemoryStore())
