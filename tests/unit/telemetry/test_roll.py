import os
import stat
from collections.abc import Callable
from pathlib import Path

import msgspec
import pyarrow.parquet as pq
import pytest

from bentos.telemetry import roll as rolling
from bentos.telemetry.contexts import ContextLog, find_context, read_contexts
from bentos.telemetry.exposures import ExposureLog, read_exposures
from bentos.telemetry.kinds import CONTEXTS, EXPOSURES, context_of_row
from bentos.telemetry.roll import roll
from bentos.telemetry.segments import MAGIC, SegmentWriter, frame, segments
from contracts.errors import DataError
from contracts.exposures import ContextRecord, Exposure, States

DAY_US = 86_400_000_000
START_US = 20_000 * DAY_US
Make = Callable[..., Exposure]


def write(home: Path, records: list[Exposure]) -> None:
    log = ExposureLog(home)
    for record in records:
        log.append(record)
    log.close()


def ids(home: Path, since_us: int | None = None, until_us: int | None = None) -> list[str]:
    return sorted(read_exposures(home, since_us, until_us)["request_id"].to_pylist())


def test_a_log_that_was_never_written_is_empty(tmp_path: Path) -> None:
    assert len(read_exposures(tmp_path)) == 0
    assert roll(tmp_path).segments == 0


def test_each_record_is_read_once_before_during_and_after_rolling(tmp_path: Path, exposure: Make) -> None:
    write(tmp_path, [exposure(i) for i in range(50)])
    wanted = sorted(f"r{i}" for i in range(50))
    assert ids(tmp_path) == wanted
    assert roll(tmp_path).records == 50
    assert ids(tmp_path) == wanted
    assert roll(tmp_path).records == 0


def test_what_holds_ids_of_users_is_not_for_others_to_read(tmp_path: Path, exposure: Make) -> None:
    before = os.umask(0o022)
    try:
        write(tmp_path, [exposure(1)])
        roll(tmp_path)
    finally:
        os.umask(before)
    files = list((tmp_path / "log").rglob("*.parquet"))
    assert files
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o640}


def test_the_rolled_columns_hold_what_was_logged(tmp_path: Path, exposure: Make) -> None:
    write(tmp_path, [exposure(1, slate_propensity=0.25)])
    before = read_exposures(tmp_path)
    roll(tmp_path)
    after = read_exposures(tmp_path)
    assert before.schema == after.schema == EXPOSURES.arrow
    assert before.to_pylist() == after.to_pylist()
    row = after.to_pylist()[0]
    assert row["item_ids"] == ["i1", "i2"]
    assert row["versions"]["rules"] == "rules"
    assert dict(row["experiments"]) == {"exp": "treatment"}
    assert row["slate_propensity"] == 0.25


def test_records_lie_in_the_folder_of_their_day_and_intervals_are_half_open(tmp_path: Path, exposure: Make) -> None:
    days = [exposure(i, timestamp_us=START_US + i * DAY_US) for i in range(4)]
    write(tmp_path, days)
    for _ in range(2):
        assert ids(tmp_path, START_US + DAY_US, START_US + 3 * DAY_US) == ["r1", "r2"]
        assert ids(tmp_path, START_US + 2 * DAY_US) == ["r2", "r3"]
        roll(tmp_path)
    assert len(list((tmp_path / "log/exposures").glob("date=*/*.parquet"))) == 4


def test_a_crash_between_parquet_and_removal_doubles_nothing(
    tmp_path: Path, exposure: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, [exposure(i, timestamp_us=START_US + i * DAY_US) for i in range(3)])

    class Killed(BaseException):
        pass

    def die(self: Path, missing_ok: bool = False) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", die)
        with pytest.raises(Killed):
            roll(tmp_path)
    assert ids(tmp_path) == ["r0", "r1", "r2"]
    roll(tmp_path)
    assert ids(tmp_path) == ["r0", "r1", "r2"]


def test_a_crash_in_the_middle_of_a_parquet_file_loses_nothing(
    tmp_path: Path, exposure: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, [exposure(i) for i in range(3)])
    with monkeypatch.context() as patch:
        patch.setattr(rolling.os, "fsync", lambda _: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            roll(tmp_path)
    assert ids(tmp_path) == ["r0", "r1", "r2"]
    roll(tmp_path)
    assert ids(tmp_path) == ["r0", "r1", "r2"]
    assert not list((tmp_path / "log/exposures").rglob("*.part"))


def test_the_open_segment_of_a_live_writer_is_left_alone(tmp_path: Path, exposure: Make) -> None:
    log = ExposureLog(tmp_path)
    log.append(exposure(1))
    while log.counts().written < 1:
        pass
    assert roll(tmp_path).segments == 0
    assert ids(tmp_path) == ["r1"]
    log.close()
    assert roll(tmp_path).segments == 1
    assert {p.name[:5] for p in (tmp_path / "log/exposures").iterdir() if p.is_dir()} == {"date=", ".show"}


def test_only_one_process_rolls_at_a_time(tmp_path: Path, exposure: Make) -> None:
    write(tmp_path, [exposure(1)])
    with rolling.roll_lock(tmp_path / "log/exposures") as ours:
        assert ours
        assert roll(tmp_path).segments == 0
    assert roll(tmp_path).segments == 1


def test_damage_is_counted_and_the_damaged_file_is_kept(tmp_path: Path, exposure: Make) -> None:
    write(tmp_path, [exposure(i) for i in range(3)])
    path = segments(tmp_path / "log/exposures")[0].path
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)
    rolled = roll(tmp_path)
    assert (rolled.records, rolled.corrupt) == (2, 1)
    assert len(ids(tmp_path)) == 2
    assert len(list((tmp_path / "log/exposures/.corrupt").iterdir())) == 1


def test_a_record_of_an_unknown_schema_is_refused_and_left_where_it_is(tmp_path: Path, exposure: Make) -> None:
    write(tmp_path, [exposure(1)])
    path = segments(tmp_path / "log/exposures")[0].path
    path.write_bytes(MAGIC + frame(msgspec.msgpack.encode(exposure(2, schema=99))))
    with pytest.raises(DataError, match="schema 99"):
        read_exposures(tmp_path)
    assert roll(tmp_path).refused == 1
    assert path.exists()


def test_records_and_files_from_before_the_age_of_lists_was_logged_are_still_read(
    tmp_path: Path, exposure: Make
) -> None:
    old = msgspec.structs.asdict(exposure(1))
    del old["batch_age_s"]
    assert EXPOSURES.decode(msgspec.msgpack.encode(old)) == exposure(1)
    table = EXPOSURES.table([exposure(1)]).drop_columns(["batch_age_s"])
    day = tmp_path / "log" / "exposures" / "date=2024-10-04"
    day.mkdir(parents=True)
    pq.write_table(table, day / "old.parquet")
    (row,) = read_exposures(tmp_path).to_pylist()
    assert (row["request_id"], row["batch_age_s"]) == ("r1", None)


def test_a_context_record_survives_parquet(tmp_path: Path, context_record: Callable[..., ContextRecord]) -> None:
    record = context_record("r1")
    table = CONTEXTS.table([record])
    pq.write_table(table, tmp_path / "c.parquet")
    assert context_of_row(pq.read_table(tmp_path / "c.parquet").to_pylist()[0]) == record


def test_a_request_is_found_in_memory_in_a_segment_and_in_parquet(
    tmp_path: Path, context_record: Callable[..., ContextRecord]
) -> None:
    # A UUIDv7 of the record's day: 48 bits of milliseconds, then the version.
    request_id = f"{START_US // 1000:012x}"
    request_id = f"{request_id[:8]}-{request_id[8:]}-7000-8000-000000000001"
    log = ContextLog(tmp_path, ring=1)
    log.append(context_record(request_id))
    assert log.find(request_id) == context_record(request_id)
    log.append(context_record("another"))  # pushes it out of memory
    log.close()
    assert log.find(request_id) == context_record(request_id)
    roll(tmp_path)
    assert find_context(tmp_path, request_id) == context_record(request_id)
    assert find_context(tmp_path, "another") == context_record("another")
    assert find_context(tmp_path, request_id[:-1] + "2") is None
    assert find_context(tmp_path, "ffffffff-ffff-7fff-bfff-ffffffffffff") is None  # of the year 10889
    assert read_contexts(tmp_path).num_rows == 2


def test_the_sample_of_contexts_has_about_the_wanted_share(
    tmp_path: Path, context_record: Callable[..., ContextRecord]
) -> None:
    for share, low, high in ((0.0, 0, 0), (0.25, 200, 300), (1.0, 1_000, 1_000)):
        log = ContextLog(tmp_path / str(share), share)
        for i in range(1_000):
            log.append(context_record(f"r{i}"))
        log.close()
        assert low <= log.counts().written <= high


def test_a_writer_that_never_wrote_leaves_nothing(tmp_path: Path) -> None:
    SegmentWriter(tmp_path / "log", capacity=1).close()
    assert not (tmp_path / "log").exists()


def test_the_share_with_the_rankers_rows_lies_within_the_share_that_is_kept(tmp_path):
    log = ContextLog(tmp_path, 0.5, rows_share=0.25)
    ids = [f"r{i}" for i in range(4000)]
    kept, with_rows = ({i for i in ids if choose(i)} for choose in (log.keeps, log.keeps_rows))
    assert with_rows < kept
    assert 0.25 * len(kept) == pytest.approx(len(with_rows), rel=0.15)


def test_an_exposure_has_its_states_and_one_of_before_is_still_read(tmp_path: Path, exposure: Make) -> None:
    states = States(catalogue="c1", flags=3, counts=7, missing=("two_tower",))
    write(tmp_path, [exposure(1, states=states)])
    (row,) = read_exposures(tmp_path).to_pylist()
    assert msgspec.convert(row["states"], States) == states
    old = msgspec.to_builtins(exposure(2)) | {"schema": 1}
    del old["states"]
    segments(tmp_path / "log/exposures")[0].path.write_bytes(MAGIC + frame(msgspec.msgpack.encode(old)))
    day = tmp_path / "log" / "exposures" / "date=2024-10-04"
    day.mkdir()
    pq.write_table(EXPOSURES.table([exposure(3, schema=1)]).drop_columns(["states"]), day / "old.parquet")
    assert {row["request_id"]: row["states"] for row in read_exposures(tmp_path).to_pylist()} == {
        "r2": None,
        "r3": None,
    }


def test_a_context_of_before_versions_were_named_is_still_read(
    tmp_path: Path, context_record: Callable[..., ContextRecord]
) -> None:
    later = ("aim", "degradation", "stale", "last", "lists", "item_ids", "scores", "versions", "states")
    later += ("candidate_scores", "ranked_item_ids", "ranked_scores", "shown", "packed")
    record = context_record("r1")
    old = msgspec.to_builtins(record) | {"schema": 1}
    for name in later:
        del old[name]
    first = CONTEXTS.decode(msgspec.msgpack.encode(old))
    assert first == msgspec.structs.replace(record, schema=1)
    assert (first.versions, first.states, first.item_ids) == (None, None, [])
    table = CONTEXTS.table([first]).drop_columns([name for name in later if name in CONTEXTS.arrow.names])
    day = tmp_path / "log" / "contexts" / "date=2024-10-04"
    day.mkdir(parents=True)
    pq.write_table(table, day / "old.parquet")
    (row,) = read_contexts(tmp_path).to_pylist()
    assert context_of_row(row) == first
    with pytest.raises(DataError, match="schema 4"):
        CONTEXTS.decode(msgspec.msgpack.encode(old | {"schema": 4}))
