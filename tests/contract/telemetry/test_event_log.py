"""What every event log promises. A new adapter joins by one line in LOGS."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bentos.telemetry.event_log import EVENTS_ARROW, forget_events, read_events
from bentos.telemetry.event_logs import EventLog
from bentos.telemetry.event_store import EventStore
from bentos.telemetry.event_stream import RedisEventLog
from bentos.telemetry.tail import EventTail
from contracts.events import Event

Open = Callable[[], EventLog]
NOW = time.time_ns() // 1000


def sqlite_log(request: pytest.FixtureRequest) -> tuple[Open, str]:
    folder = request.getfixturevalue("tmp_path")
    return lambda: EventStore(folder), "sqlite"


def redis_log(request: pytest.FixtureRequest) -> tuple[Open, str]:
    url = request.getfixturevalue("durable_url")
    return lambda: RedisEventLog(url), url


LOGS = {"sqlite": sqlite_log, "redis": redis_log}


@pytest.fixture(params=[pytest.param(name, marks=pytest.mark.redis if name == "redis" else ()) for name in LOGS])
def opened(request: pytest.FixtureRequest) -> tuple[Open, str]:
    """Opens the same log again and again; and its `event_log` setting."""
    return LOGS[request.param](request)


@pytest.fixture
def log(opened: tuple[Open, str]) -> Iterator[EventLog]:
    log = opened[0]()
    yield log
    log.close()


def event(event_id: str, at_us: int = NOW, **more: object) -> Event:
    return Event(event_id, "u1", "i1", "click", at_us, max(at_us, NOW), **more)  # type: ignore[arg-type]


def ids(log: EventLog, position: str = "", limit: int = 100) -> list[str]:
    return [e.event_id for e in log.after(position, limit)[0]]


def test_an_event_counts_once_within_a_batch_across_batches_and_across_lives(opened: tuple[Open, str]) -> None:
    first = opened[0]()
    assert first.append([[event("a"), event("b"), event("a")], [event("b"), event("c")]]) == [(2, 1), (1, 1)]
    first.close()
    second = opened[0]()
    assert second.append([[event("c"), event("d")], []]) == [(1, 1), (0, 0)]
    assert ids(second) == ["a", "b", "c", "d"]
    second.close()


def test_what_was_sent_is_what_is_read(log: EventLog) -> None:
    sent = [event("a", request_id="r", position=3, value=2.5, context={"device": "ios"}), event("ü\U0001f600 b")]
    log.append([sent])
    assert log.after("", 10)[0] == sent


def test_reading_goes_on_where_it_ended(log: EventLog) -> None:
    assert log.after("", 10) == ([], "")
    log.append([[event(str(n)) for n in range(5)]])
    first, position = log.after("", 3)
    assert [e.event_id for e in first] == ["0", "1", "2"]
    assert ids(log, position) == ["3", "4"]
    _, end = log.after(position, 10)
    assert log.after(end, 10) == ([], end)
    log.append([[event("0"), event("5")]])
    assert ids(log, end) == ["5"]


def test_a_body_larger_than_one_script_or_statement_is_stored_whole(log: EventLog) -> None:
    batches = [[event(f"{b}-{n}") for n in range(1_000)] for b in range(3)]
    assert log.append([*batches, batches[0]]) == [(1_000, 0)] * 3 + [(0, 1_000)]
    assert len(log.after("", 10_000)[0]) == 3_000


def test_it_has_a_name_that_outlives_it(opened: tuple[Open, str]) -> None:
    one, other = opened[0](), opened[0]()
    assert one.id == other.id
    one.close()
    other.close()


def test_upkeep_takes_nothing_that_is_young_or_that_someone_still_needs(log: EventLog) -> None:
    log.append([[event("a")]])
    log.advance(NOW)
    log.advance(NOW + 400 * 86_400_000_000, taken="")
    assert ids(log) == ["a"]


def test_the_whole_log_is_a_table(opened: tuple[Open, str], log: EventLog, tmp_path: Path) -> None:
    log.append([[event("a", NOW - 10, request_id="r", position=3, value=2.5, context={"device": "ios"})]])
    log.append([[event(str(n), NOW + n) for n in range(5)]])
    table = read_events(tmp_path, event_log=opened[1])
    assert table.schema == EVENTS_ARROW
    first = table.to_pylist()[0]
    assert (first["request_id"], first["position"], first["value"]) == ("r", 3, 2.5)
    assert dict(first["context"]) == {"device": "ios"}
    assert table["event_id"].to_pylist() == ["a", "0", "1", "2", "3", "4"]
    part = read_events(tmp_path, NOW + 1, NOW + 3, event_log=opened[1])
    assert part["event_id"].to_pylist() == ["1", "2"]


def test_a_log_that_nobody_has_written_to_is_an_empty_table(opened: tuple[Open, str], tmp_path: Path) -> None:
    assert read_events(tmp_path / "new", event_log=opened[1]).num_rows == 0
    assert EventTail(tmp_path / "new", 0, event_log=opened[1]).read().num_rows == 0


def test_a_tail_reads_on_and_leaves_out_what_is_older(opened: tuple[Open, str], log: EventLog, tmp_path: Path) -> None:
    tail = EventTail(tmp_path, NOW, event_log=opened[1])
    log.append([[event("old", NOW - 1), event("a", NOW), event("b", NOW)]])
    assert tail.read(limit=2)["event_id"].to_pylist() in (["a"], ["a", "b"])
    tail.read()
    log.append([[event("c", NOW)]])
    assert tail.read()["event_id"].to_pylist() == ["c"]
    assert tail.read().num_rows == 0


def test_one_user_can_be_forgotten(log, opened, tmp_path):
    setting = opened[1]
    mine = [Event(f"m{n}", "u1", "i1", "click", NOW, NOW) for n in range(3)]
    log.append([[*mine, Event("o1", "u2", "i1", "click", NOW, NOW)]])
    assert forget_events(tmp_path, "u1", event_log=setting, dry_run=True) == 3
    assert forget_events(tmp_path, "u1", event_log=setting) == 3
    assert forget_events(tmp_path, "u1", event_log=setting) == 0
    assert read_events(tmp_path, event_log=setting)["event_id"].to_pylist() == ["o1"]
