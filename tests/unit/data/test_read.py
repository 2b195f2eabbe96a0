from datetime import UTC, datetime

import pytest

from contracts.errors import DataError, NotFound
from training.data import read
from training.data.snapshot import take

DAY_US = 86_400_000_000
START_US = int(datetime(2023, 9, 20, tzinfo=UTC).timestamp() * 1e6)


@pytest.mark.parametrize("form", ["source", "snapshot"])
def test_a_window_is_half_open_and_columns_are_chosen(make, tmp_path, now_us, form):
    folder = make()
    if form == "snapshot":
        folder = take(folder, tmp_path / "home", now_us=now_us).folder
    table = read.interactions(
        folder, ["user_id", "timestamp"], since_us=START_US + DAY_US, until_us=START_US + 2 * DAY_US
    )
    assert table.column_names == ["user_id", "timestamp"]
    assert table["user_id"].to_pylist() == ["u6", "u7", "u8", "u9", "u0", "u1"]  # rows 6 to 11, 4 hours apart
    assert read.log_end_us(folder) == START_US + 199 * 4 * 3_600_000_000
    assert read.schema(folder / "interactions.parquet").names[:4] == ["user_id", "item_id", "timestamp", "event"]


def test_a_column_that_is_not_there_is_a_data_error(make):
    with pytest.raises(DataError):
        read.interactions(make(), ["planet"])


def test_a_missing_table_is_not_found_and_users_are_optional(make, tmp_path):
    assert read.users(make()) is None
    with pytest.raises(NotFound):
        read.items(tmp_path)


def test_a_damaged_file_is_a_data_error(make):
    folder = make()
    (folder / "items.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(DataError) as caught:
        read.items(folder)
    assert caught.value.next_command == f"streamrec data validate {folder}"
