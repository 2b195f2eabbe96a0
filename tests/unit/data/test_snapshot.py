import errno
import os
import shutil
import stat
from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from contracts.errors import DataError, NotFound
from training.data import read
from training.data.snapshot import Snapshot, take

OCTOBER_US = int(datetime(2023, 10, 1, tzinfo=UTC).timestamp() * 1e6)


def test_a_snapshot_is_the_accepted_rows_sorted_and_canonical(make, tmp_path, interactions, now_us):
    users = interactions["user_id"].to_pylist()
    users[0] = None
    shuffled = pa.table(interactions | {"user_id": pa.array(users)}).take(pa.array(range(199, -1, -1)))
    taken = take(
        make(log=dict(zip(shuffled.column_names, shuffled.columns, strict=True))), tmp_path / "home", now_us=now_us
    )
    log = read.interactions(taken.folder)
    assert len(log) == 199
    assert taken.rows == {"interactions": 199, "items": 20}
    assert taken.rejects == {"items": 0, "interactions": 1}
    assert log["timestamp"].to_pylist() == interactions["timestamp"].to_pylist()[1:]
    assert log.column_names == ["user_id", "item_id", "timestamp", "event", "value"]


def test_rows_at_equal_times_have_one_order(make, tmp_path, interactions, now_us):
    same = pa.array([interactions["timestamp"][0].as_py()] * 200, interactions["timestamp"].type)
    table = pa.table(interactions | {"timestamp": same, "value": pa.array(range(200), pa.float64())})
    other = table.take(pa.array([(i * 37) % 200 for i in range(200)]))
    digests = {
        take(make(name, log=dict(zip(t.column_names, t.columns, strict=True))), tmp_path / "home", now_us=now_us).digest
        for name, t in (("a", table), ("b", other))
    }
    assert len(digests) == 1


def test_the_digest_depends_on_content_not_on_path_writer_or_row_order(make, tmp_path, now_us):
    folder = make("a")
    moved = tmp_path / "elsewhere"
    shutil.copytree(folder, moved)
    table = pq.read_table(folder / "interactions.parquet").replace_schema_metadata({"written": "by another"})
    backwards = table.take(pa.array(range(199, -1, -1)))
    pq.write_table(backwards, moved / "interactions.parquet", compression="gzip", row_group_size=7)
    home = tmp_path / "home"
    assert take(folder, home, now_us=now_us).digest == take(moved, home, now_us=now_us).digest
    assert len(list((home / "snapshots").iterdir())) == 2  # one snapshot, and the parts


@pytest.mark.parametrize("change", ["row", "value", "config", "item", "column"])
def test_the_digest_changes_with_any_content(make, tmp_path, interactions, items, now_us, change):
    before = take(make("a"), tmp_path / "home", now_us=now_us).digest
    after = {
        "row": lambda: make("b", log={k: v.slice(1) for k, v in interactions.items()}),
        "value": lambda: make("b", log={"value": pa.array([1.0] + [None] * 199)}),
        "config": lambda: make("b", config='name = "other"\n[[positives]]\nevent = "click"\n'),
        "item": lambda: make("b", shop={"title": pa.array(["x"] + [None] * 19)}),
        "column": lambda: make("b", log={"device": pa.array(["ios"] * 200)}),
    }[change]()
    assert take(after, tmp_path / "home", now_us=now_us).digest != before


def test_a_cut_keeps_rows_before_it_and_shares_the_months_that_did_not_change(make, tmp_path, now_us):
    folder, home = make(), tmp_path / "home"
    whole = take(folder, home, now_us=now_us)
    earlier = take(folder, home, until_us=OCTOBER_US + 3_600_000_000, now_us=now_us)
    assert pc.max(read.interactions(earlier.folder)["timestamp"]).as_py() == datetime(2023, 10, 1, tzinfo=UTC)
    exactly = take(folder, home, until_us=OCTOBER_US, now_us=now_us)
    assert pc.max(read.interactions(exactly.folder)["timestamp"]).as_py() < datetime(2023, 10, 1, tzinfo=UTC)
    september = {
        (s.folder / "interactions.parquet" / "2023-09.parquet").stat().st_ino for s in (whole, earlier, exactly)
    }
    assert len(september) == 1
    assert len({(s.folder / "items.parquet").stat().st_ino for s in (whole, earlier, exactly)}) == 1
    assert sorted(p.name for p in (whole.folder / "interactions.parquet").iterdir()) == [
        "2023-09.parquet",
        "2023-10.parquet",
    ]


def test_a_snapshot_outlives_its_source_and_opens_by_digest(make, tmp_path, now_us):
    folder, home = make(), tmp_path / "home"
    taken = take(folder, home, now_us=now_us)
    rows = read.interactions(folder).num_rows
    shutil.rmtree(folder)
    again = Snapshot.open(home, taken.digest)
    assert again == taken
    assert read.interactions(again.folder).num_rows == rows
    assert again.config.name == "small"
    with pytest.raises(NotFound):
        Snapshot.open(home, "0" * 64)


def test_a_snapshot_of_a_snapshot_is_itself(make, tmp_path, now_us):
    taken = take(make(), tmp_path / "home", now_us=now_us)
    assert take(taken.folder, tmp_path / "home", now_us=now_us) == taken
    assert take(taken.folder, tmp_path / "other", now_us=now_us).digest == taken.digest


def test_files_of_a_snapshot_are_read_only(make, tmp_path, now_us):
    taken = take(make(), tmp_path / "home", now_us=now_us)
    files = [p for p in taken.folder.rglob("*") if p.is_file()]
    assert len(files) == 5  # two months, items, dataset.toml, snapshot.json
    assert {stat.S_IMODE(p.stat().st_mode) for p in files} == {0o444}


def test_a_part_that_was_damaged_is_found_by_verify(make, tmp_path, now_us):
    taken = take(make(), tmp_path / "home", now_us=now_us)
    taken.verify()
    path = taken.folder / "items.parquet"
    path.chmod(0o644)
    table = pq.read_table(path)
    pq.write_table(table.set_column(1, "category", pa.array(["other"] * 20)), path)
    with pytest.raises(DataError, match=r"items\.parquet is not what it was"):
        taken.verify()


def test_left_overs_of_a_killed_run_do_not_stop_the_next(make, tmp_path, now_us):
    home = tmp_path / "home"
    parts = home / "snapshots" / "parts"
    parts.mkdir(parents=True)
    (parts / f".partial-{2**22 + 1}-ab").write_bytes(b"half")
    (home / "snapshots" / f".partial-{2**22 + 1}-cd").mkdir()
    take(make(), home, now_us=now_us)
    assert not list(home.rglob(".partial*"))


def test_a_cut_before_the_log_is_an_error_and_leaves_no_snapshot(make, tmp_path, now_us):
    with pytest.raises(DataError, match="no interaction before"):
        take(make(), tmp_path / "home", until_us=0, now_us=now_us)
    assert [p.name for p in (tmp_path / "home" / "snapshots").iterdir()] == ["parts"]


def test_a_broken_data_set_leaves_no_snapshot(make, tmp_path, now_us):
    folder = make(log={"user_id": pa.array([None] * 200, pa.string())})
    with pytest.raises(DataError, match="null_id"):
        take(folder, tmp_path / "home", now_us=now_us)
    assert not (tmp_path / "home").exists() or not any(
        p for p in (tmp_path / "home" / "snapshots").iterdir() if p.name != "parts"
    )


def test_users_come_along_sorted(make, tmp_path, now_us):
    folder = make(people={"user_id": pa.array(["u2", "u1"]), "country": pa.array(["DE", None])})
    taken = take(folder, tmp_path / "home", now_us=now_us)
    users = read.users(taken.folder)
    assert users is not None
    assert users.to_pylist() == [{"user_id": "u1", "country": None}, {"user_id": "u2", "country": "DE"}]
    assert os.path.samefile(
        taken.folder / "users.parquet",
        tmp_path / "home" / "snapshots" / "parts" / f"{taken.files['users.parquet']}.parquet",
    )


def test_columns_of_any_kind_are_kept_and_verified(make, tmp_path, now_us):
    own = {
        "a_bool": pa.array([True, None] * 100),
        "a_date": pa.array([1, None] * 100, pa.int32()).cast(pa.date32()),
        "a_decimal": pa.array([1, None] * 100).cast(pa.decimal128(30, 2)),
        "a_float": pa.array([1.5, None] * 100, pa.float32()),
        "a_null": pa.nulls(200),
        "a_time": pa.array([1, None] * 100).cast(pa.timestamp("ms")),
        "a_word": pa.array(["x", None] * 100).dictionary_encode(),
        "an_int": pa.array([1, None] * 100, pa.uint64()),
    }
    taken = take(make(log=own), tmp_path / "home", now_us=now_us)
    taken.verify()
    log = read.interactions(taken.folder)
    assert log.column_names[5:] == list(own)
    assert log["an_int"].to_pylist() == [1, None] * 100


def test_a_file_system_without_hard_links_gets_copies(make, tmp_path, now_us, monkeypatch):
    def refuse(*_: object) -> None:
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr(os, "link", refuse)
    taken = take(make(), tmp_path / "home", now_us=now_us)
    taken.verify()
    assert stat.S_IMODE((taken.folder / "items.parquet").stat().st_mode) == 0o444


def test_a_store_that_cannot_be_written_is_a_data_error_that_names_it(make, tmp_path, now_us):
    (tmp_path / "home").write_text("a file")
    with pytest.raises(DataError, match=r"snapshot store .* cannot be written"):
        take(make(), tmp_path / "home", now_us=now_us)
