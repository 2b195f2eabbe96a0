"""Logs that are followed: each record once, however reads, writes, deaths and rolls fall between one another."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import msgpack

from bentos.telemetry.event_store import EventStore
from bentos.telemetry.exposures import ExposureLog, read_exposures
from bentos.telemetry.kinds import EXPOSURES
from bentos.telemetry.roll import roll
from bentos.telemetry.segments import MAGIC, frame, segments
from bentos.telemetry.tail import EventTail, Tail
from contracts.errors import DataError
from contracts.events import Event
from contracts.exposures import Exposure, Versions

DAY_US = 86_400_000_000
START_US = 20_000 * DAY_US
Make = Callable[..., Exposure]


def record(number: int) -> Exposure:
    """Every third is of the next day."""
    stamp = START_US + number + (DAY_US if number % 3 == 0 else 0)
    return Exposure(
        f"r{number}", stamp, 5, "u", "u", "champion", "champion", 1.0, False, None, "ok", "full", ["i"],
        Versions("b", "r", "k", "f", "rules"), {},
    )  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(steps=st.lists(st.sampled_from(["write 0", "write 1", "read", "next 0", "next 1", "roll", "half"]), max_size=40))
def test_each_record_comes_once_over_writers_cut_frames_and_rolls(steps: list[str]) -> None:
    with TemporaryDirectory() as name:
        home = Path(name)
        tail, got, number, cut = Tail(home, EXPOSURES, 0), Counter[str](), 0, b""
        folders = [home / "log/exposures" / f"w-{w}-1" for w in (0, 1)]
        for folder in folders:  # nobody holds the locks: all segments are final, and whatever is there is rolled
            folder.mkdir(parents=True)
            (folder / "lock").touch()
        at = [1, 1]

        def append(writer: int, data: bytes) -> None:
            folder = folders[writer]
            folder.mkdir(exist_ok=True)
            (folder / "lock").touch()
            path = folder / f"{at[writer]:06d}.seg"
            with path.open("ab") as file:
                file.write((b"" if path.stat().st_size else MAGIC) + data)

        for step in [*steps, "read", "roll", "read", "read"]:
            what, _, writer = step.partition(" ")
            if what == "write":
                data = frame(msgpack.encode(record(number)))
                append(int(writer), (cut if writer == "0" else b"") + data)
                cut = b"" if writer == "0" else cut
                number += 1
            elif what == "half" and not cut:  # a reader comes while a frame is being written
                data = frame(msgpack.encode(record(number)))
                number += 1
                append(0, data[: len(data) // 2])
                cut = data[len(data) // 2 :]
            elif what == "read":
                got.update(tail.read(3)["request_id"].to_pylist())
            elif what in ("next", "roll"):
                if cut:
                    append(0, cut)
                    cut = b""
                if what == "next":
                    at[int(writer)] += 1
                else:
                    roll(home)
                    at = [n + 1 for n in at]
        while len(table := tail.read(3)):
            got.update(table["request_id"].to_pylist())
        assert got == Counter({f"r{n}": 1 for n in range(number)})
        assert sorted(got) == sorted(read_exposures(home)["request_id"].to_pylist())


def test_a_live_writer_is_read_as_it_writes(tmp_path: Path, exposure: Make) -> None:
    log, tail = ExposureLog(tmp_path), Tail(tmp_path, EXPOSURES, START_US + 1)
    log.append(exposure(0))  # before the moment
    log.append(exposure(1))
    log.close()
    assert tail.read()["request_id"].to_pylist() == ["r1"]
    assert [s.final for s in segments(tmp_path / "log/exposures")] == [True]
    roll(tmp_path)
    assert len(tail.read()) == 0


def test_a_parquet_file_that_is_damaged_is_told_by_name(tmp_path: Path) -> None:
    path = tmp_path / "log/exposures/date=2026-11-24/w-1-1-000001.parquet"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"cut")
    with pytest.raises(DataError, match=r"w-1-1-000001\.parquet is no Parquet file"):
        Tail(tmp_path, EXPOSURES, 0).read()


def event(number: int, timestamp_us: int) -> Event:
    return Event(f"e{number}", "u", "i", "click", timestamp_us, timestamp_us)


def test_each_event_comes_once_in_the_order_of_arrival_late_ones_too(tmp_path: Path) -> None:
    store, tail = EventStore(tmp_path), EventTail(tmp_path, 100)
    store.append([[event(1, 50), event(2, 150), event(3, 60), event(4, 140)]])
    assert tail.read(1)["event_id"].to_pylist() == ["e2"]
    assert tail.read(1)["event_id"].to_pylist() == ["e4"]
    assert tail.read()["event_id"].to_pylist() == []
    store.append([[event(5, 110), event(4, 140), event(6, 99), event(7, 100)]])
    assert tail.read()["event_id"].to_pylist() == ["e5", "e7"]
    store.append([[event(8, 1)]])
    assert tail.read()["event_id"].to_pylist() == []
    store.append([[event(9, 101)]])
    assert tail.read()["event_id"].to_pylist() == ["e9"]
    store.close()
