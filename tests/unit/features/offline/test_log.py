from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from contracts.errors import DataError
from features.offline.log import open_log
from features.streaming import positive_weight

Write = Callable[..., Path]


def open_and_look(folder: Path) -> None:
    with open_log(folder) as log:
        log.span_us()


def test_a_folder_that_is_no_data_set_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is it a data set"):
        open_and_look(tmp_path)


@pytest.mark.parametrize("file", ["interactions.parquet", "items.parquet"])
def test_a_missing_or_broken_file_is_a_clear_error(write: Write, file: str) -> None:
    folder = write([("u", "a", 1, "click")])
    (folder / file).write_bytes(b"PK\x03\x04 a zip, not Parquet")
    with pytest.raises(DataError, match=str(folder)):
        open_and_look(folder)
    (folder / file).unlink()
    with pytest.raises(DataError, match=file):
        open_and_look(folder)


def test_a_missing_column_is_named_with_the_command_that_checks(write: Write) -> None:
    folder = write([("u", "a", 1, "click")])
    path = folder / "interactions.parquet"
    pq.write_table(pq.read_table(path).drop_columns(["event"]), path)
    with pytest.raises(DataError, match="event") as caught:
        open_and_look(folder)
    assert caught.value.next_command == f"streamrec data validate {folder}"


def test_timestamps_that_are_text_are_a_clear_error(write: Write) -> None:
    folder = write([("u", "a", 1, "click")])
    path = folder / "interactions.parquet"
    table = pq.read_table(path)
    pq.write_table(table.set_column(2, "timestamp", pa.array(["yesterday"])), path)
    with pytest.raises(DataError):
        open_and_look(folder)


def test_an_empty_log_says_so(write: Write) -> None:
    folder = write([], {"a": "all"})
    with pytest.raises(DataError, match="holds no events"):
        open_and_look(folder)


def test_a_log_without_values_is_fine(write: Write) -> None:
    folder = write([("u", "a", 7, "click")])
    path = folder / "interactions.parquet"
    pq.write_table(pq.read_table(path).drop_columns(["value"]), path)
    with open_log(folder) as log:
        assert log.span_us() == (7, 7)


def test_the_weights_of_sql_and_of_the_stream_are_the_same(world: Path) -> None:
    with open_log(world) as log:
        found = log.db.execute("SELECT event, value, weight FROM log").fetchall()
        assert {weight for _, _, weight in found} == {0.0, 1.0, 2.0}
        for event, value, weight in found:
            assert positive_weight(log.config, event, value) == weight


def test_the_future_can_be_hidden_and_the_crowd_too(world: Path) -> None:
    with open_log(world, until_us=10 * 86_400_000_000, user_ids=["u1", "nobody"]) as log:
        users, last = log.db.execute("SELECT list(DISTINCT user_id), max(at_us) FROM log").fetchall()[0]
    assert users == ["u1"]
    assert last < 10 * 86_400_000_000


def test_a_mistake_in_a_query_is_not_blamed_on_the_data(world: Path) -> None:
    import duckdb

    with pytest.raises(duckdb.ParserException), open_log(world) as log:
        log.db.execute("SELEKT 1")
