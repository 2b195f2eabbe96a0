from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from bentos.telemetry.exposures import ExposureLog
from bentos.telemetry.kinds import EXPOSURES
from bentos.telemetry.roll import log_folder, roll
from bentos.telemetry.shown import FOLDER, count_shown
from contracts.errors import Unreachable
from contracts.exposures import Exposure
from features.item_counts import HOUR_US, KEEP_HOURS, Key
from features.online.memory import MemoryStore

AT = 500_000 * HOUR_US
NOW = AT + 3 * HOUR_US
MakeExposure = Callable[..., Exposure]


@pytest.fixture
def logged(tmp_path: Path, exposure: MakeExposure) -> Path:
    """Three answers in two hours, one of them empty; rolled by nobody yet."""
    log = ExposureLog(tmp_path)
    log.append(exposure(1, timestamp_us=AT, item_ids=["a", "b"]))
    log.append(exposure(2, timestamp_us=AT + 1, item_ids=["b"]))
    log.append(exposure(3, timestamp_us=AT + HOUR_US, item_ids=["b", "c"]))
    log.append(exposure(4, timestamp_us=AT, outcome="refused", item_ids=["x"]))
    log.close()
    return tmp_path


def counts(store: MemoryStore) -> dict[str, int]:
    found = store.read_item_counts(NOW)
    assert set(found.events) <= {"impression"}
    return dict(zip(found.item_ids, found.n.tolist(), strict=True))


def waiting(home: Path) -> list[Path]:
    return sorted((log_folder(home, EXPOSURES) / FOLDER).glob("*"))


def test_a_rolled_segment_is_counted_by_item_and_hour_and_then_forgotten(logged: Path) -> None:
    roll(logged)
    assert len(waiting(logged)) == 1
    store = MemoryStore()
    count_shown(logged, store.add_shown, NOW)
    assert counts(store) == {"a": 1, "b": 3, "c": 1}
    assert store._hours[AT // HOUR_US, Key("b", "impression", -1)].n == 2
    assert waiting(logged) == []


def test_killed_before_the_file_is_removed_a_segment_counts_once(logged: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = MemoryStore()
    segment = next(log_folder(logged, EXPOSURES).glob("*/*.seg"))
    kept = segment.read_bytes()
    roll(logged)
    with monkeypatch.context() as patch:

        def killed(self: Path, **_: Any) -> None:
            raise KeyboardInterrupt

        patch.setattr(Path, "unlink", killed)
        with pytest.raises(KeyboardInterrupt):
            count_shown(logged, store.add_shown, NOW)
    count_shown(logged, store.add_shown, NOW)
    # The roller was killed before it removed the segment, and the counts were taken meanwhile: it is rolled again.
    segment.parent.mkdir(exist_ok=True)
    segment.write_bytes(kept)
    roll(logged)
    count_shown(logged, store.add_shown, NOW)
    assert counts(store) == {"a": 1, "b": 3, "c": 1}
    assert waiting(logged) == []


def test_a_store_that_is_away_is_told_the_next_time(logged: Path) -> None:
    roll(logged)
    store = MemoryStore()
    store.away = True
    with pytest.raises(Unreachable):
        count_shown(logged, store.add_shown, NOW)
    store.away = False
    count_shown(logged, store.add_shown, NOW)
    assert counts(store) == {"a": 1, "b": 3, "c": 1}


def test_hours_outside_every_window_and_torn_files_are_left_out(logged: Path) -> None:
    roll(logged)
    store = MemoryStore()
    (waiting(logged)[0].parent / "torn.counts").write_bytes(b"\x93")
    count_shown(logged, store.add_shown, AT + (KEEP_HOURS + 1) * HOUR_US)
    assert {key.item_id for _, key in store._hours} == {"b", "c"}
    assert waiting(logged) == []


def test_parts_of_a_large_segment_are_counted_one_by_one(logged: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    roll(logged)
    told: dict[str, int] = {}

    def add(source: str, hours: Mapping[tuple[int, str], int]) -> bool:
        told[source.rpartition(":")[2]] = sum(hours.values())
        return True

    monkeypatch.setattr("bentos.telemetry.shown._PART", 3)
    count_shown(logged, add, NOW)
    assert told == {"0": 4, "1": 1}
