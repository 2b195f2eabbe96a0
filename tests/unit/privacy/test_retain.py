"""Records past their time go, day by day; the others stay."""

import os

from bentos.telemetry.event_log import read_events
from bentos.telemetry.event_store import EventStore
from bentos.telemetry.exposures import ExposureLog, read_exposures
from bentos.telemetry.roll import roll
from contracts.events import Event
from contracts.settings import Settings
from monitoring.privacy.retain import DAY_US, retain
from tests.unit.telemetry.conftest import START_US, exposure

__all__ = ["exposure"]


def test_whole_days_go_when_their_last_moment_is_too_old(tmp_path, exposure):
    settings = Settings(home=tmp_path, keep_exposures_d=10, keep_events_d=10)
    log = ExposureLog(tmp_path)
    for day in range(4):
        log.append(exposure(day, timestamp_us=START_US + day * DAY_US))
    log.close()
    roll(tmp_path)
    store = EventStore(tmp_path)
    store.append([[Event(f"e{day}", "u1", "i1", "click", START_US, START_US + day * DAY_US) for day in range(4)]])
    store.close()
    now_us = START_US + 12 * DAY_US + DAY_US // 2  # half of the third day is past its time
    assert retain(settings, now_us, dry_run=True).partitions["exposures"] == 2
    assert len(read_exposures(tmp_path)) == 4
    done = retain(settings, now_us)
    assert (done.partitions, done.events) == ({"exposures": 2, "contexts": 0, "attempts": 0}, 3)
    assert sorted(read_exposures(tmp_path)["request_id"].to_pylist()) == ["r2", "r3"]
    assert read_events(tmp_path)["event_id"].to_pylist() == ["e3"]
    assert retain(settings, now_us).partitions["exposures"] == 0


def test_of_the_drift_pages_the_oldest_go_when_there_is_no_room(tmp_path):
    settings = Settings(home=tmp_path, reports_mb=1)
    pages = [tmp_path / "reports" / f"drift-m-{n}.html" for n in range(4)]
    pages[0].parent.mkdir()
    for at, page in enumerate(pages):
        page.write_bytes(bytes(400_000))
        os.utime(page, (at, at))
    kept = tmp_path / "reports" / "mine.html"
    kept.write_bytes(bytes(4_000_000))  # not the watch's
    assert retain(settings, START_US, dry_run=True).pages == 2
    assert retain(settings, START_US).pages == 2
    assert [page.exists() for page in pages] == [False, False, True, True]
    assert retain(Settings(home=tmp_path, reports_mb=0), START_US).pages == 1
    assert (pages[3].exists(), kept.exists()) == (True, True)


def test_nothing_kept_is_nothing_removed(tmp_path):
    assert retain(Settings(home=tmp_path), START_US).events == 0
