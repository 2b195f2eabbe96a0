import json
import zipfile
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from contracts.errors import DataError, NotFound
from training.data import engine
from training.data.contract import checked, validate_and_keep_rejects, validate_folder

UTC_US = pa.timestamp("us", tz="UTC")


def _with(column: pa.Array, rows: dict[int, object]) -> pa.Array:
    values = column.to_pylist()
    for row, value in rows.items():
        values[row] = value
    return pa.array(values, column.type)


def _only(report, reason: str):
    (found,) = [r for r in report.rejected if r.reason == reason]
    return found


def test_a_good_data_set_has_no_rejects(make, now_us):
    report = validate_folder(make(), now_us=now_us)
    assert report.ok
    assert report.rows == {"items": 20, "interactions": 200}
    assert report.rejected == ()


@pytest.mark.parametrize(
    ("column", "value", "reason"),
    [
        ("user_id", None, "null_id"),
        ("user_id", "", "empty_id"),
        ("user_id", "   ", "empty_id"),
        ("user_id", "x" * 257, "id_too_long"),
        ("user_id", "a\0b", "id_has_nul"),
        ("item_id", None, "null_id"),
        ("item_id", "i99", "unknown_item"),
        ("event", None, "null_event"),
        ("event", "", "null_event"),
        ("event", "e" * 65, "event_too_long"),
        ("timestamp", None, "null_timestamp"),
        ("timestamp", datetime(2099, 1, 1, tzinfo=UTC), "future_timestamp"),
        ("timestamp", datetime(1600, 1, 1, tzinfo=UTC), "bad_timestamp"),
        ("timestamp", datetime(9999, 12, 31, tzinfo=UTC), "bad_timestamp"),
    ],
)
def test_a_bad_row_is_rejected_with_its_column_reason_and_row(make, interactions, now_us, column, value, reason):
    folder = make(log={column: _with(interactions[column], {7: value, 150: value})})
    report = validate_folder(folder, now_us=now_us)
    found = _only(report, reason)
    assert (found.table, found.column, found.count, found.first_rows) == ("interactions", column, 2, (7, 150))
    assert report.rejects("interactions") == 2


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_value_that_is_no_finite_number_is_rejected(make, now_us, value):
    folder = make(log={"value": pa.array([1.0] * 199 + [value], pa.float64())})
    found = _only(validate_folder(folder, now_us=now_us), "non_finite")
    assert (found.column, found.count, found.first_rows) == ("value", 1, (199,))


def test_a_null_value_is_no_fault(make, now_us):
    folder = make(log={"value": pa.array([None] * 200, pa.float64())})
    assert validate_folder(folder, now_us=now_us).rejected == ()


def test_a_repeated_row_is_rejected_and_a_row_that_differs_in_one_column_is_not(make, interactions, now_us):
    table = pa.table(interactions).append_column("value", pa.array(range(200), pa.float64()))
    twice = pa.concat_tables([table, table.slice(3, 1), table.slice(4, 1).set_column(4, "value", pa.array([9.5]))])
    folder = make(log={name: twice.column(name) for name in twice.column_names})
    found = _only(validate_folder(folder, now_us=now_us), "duplicate")
    assert (found.count, found.first_rows) == (1, (200,))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("2023-09-20T10:00:00", "timestamp_without_zone"),
        ("2023-09-20", "timestamp_without_zone"),
        ("yesterday", "bad_timestamp"),
        ("2023-13-45T10:00:00Z", "bad_timestamp"),
        ("", "bad_timestamp"),
    ],
)
def test_text_timestamps_without_zone_or_meaning_are_rejected(make, now_us, text, reason):
    log = [f"2023-09-20T10:{i % 60:02d}:{i // 60:02d}+02:00" for i in range(199)]
    folder = make(log={"timestamp": pa.array([*log, text])})
    assert _only(validate_folder(folder, now_us=now_us), reason).first_rows == (199,)


@pytest.mark.parametrize("text", ["2023-09-20T10:00:00Z", "2023-09-20 12:00:00+02", "2023-09-20 04:30:00-05:30"])
def test_text_timestamps_with_a_zone_are_read_as_that_moment(make, now_us, text):
    folder = make(log={"timestamp": pa.array([text] * 200), "value": pa.array(range(200), pa.float64())})
    with checked(folder, now_us=now_us) as check:
        times = check.connection.sql(check.accepted["interactions"]).to_arrow_table()["timestamp"]
    assert times.unique().to_pylist() == [datetime(2023, 9, 20, 10, tzinfo=UTC)]


def test_one_percent_of_null_ids_is_counted_and_more_stops_with_column_count_and_rows(make, interactions, now_us):
    one = make("one", log={"user_id": _with(interactions["user_id"], {5: None, 9: None})})
    assert validate_folder(one, now_us=now_us).share("interactions") == 0.01
    more = make("more", log={"user_id": _with(interactions["user_id"], {5: None, 9: None, 11: None})})
    with pytest.raises(DataError) as caught:
        validate_folder(more, now_us=now_us)
    assert "column `user_id`: 3 rows null_id (first rows 5, 9, 11)" in caught.value.message
    assert "1.50%" in caught.value.message
    assert caught.value.next_command


def test_rejects_parquet_holds_each_rejected_row_with_its_record(make, interactions, now_us):
    folder = make(log={"user_id": _with(interactions["user_id"], {5: None, 9: None})})
    validate_and_keep_rejects(folder, now_us=now_us)
    rows = pq.read_table(folder / "rejects.parquet").to_pylist()
    assert [(r["table"], r["row"], r["column"], r["reason"]) for r in rows] == [
        ("interactions", 5, "user_id", "null_id"),
        ("interactions", 9, "user_id", "null_id"),
    ]
    assert json.loads(rows[0]["record"])["item_id"] == "i05"
    assert not list(folder.glob(".*"))


def test_rejects_of_yesterday_go_when_the_rows_are_mended_and_those_of_an_import_stay(make, now_us):
    mended, imported = make("mended"), make("imported")
    (imported / "origin.json").write_text("{}")
    for folder in (mended, imported):
        (folder / "rejects.parquet").write_bytes(b"yesterday's")
        validate_and_keep_rejects(folder, now_us=now_us)
    assert not (mended / "rejects.parquet").exists()
    assert (imported / "rejects.parquet").exists()


def test_a_log_in_parts_is_read_whole_and_rows_are_told_apart(make, interactions, now_us):
    folder = make()
    (folder / "interactions.parquet").unlink()
    table = pa.table(interactions)
    for place, part in enumerate((table.slice(0, 100), table.slice(100), table.slice(150, 1))):
        path = folder / "interactions.parquet" / f"day={place}"
        path.mkdir(parents=True)
        pq.write_table(part, path / "0.parquet")
    report = validate_folder(folder, now_us=now_us)
    assert report.rows["interactions"] == 201
    assert _only(report, "duplicate").count == 1


@pytest.mark.parametrize("file", ["interactions", "items"])
def test_a_missing_column_is_named_with_its_file(make, now_us, file):
    column = {"interactions": "timestamp", "items": "category"}[file]
    folder = make(**{{"interactions": "log", "items": "shop"}[file]: {column: None}})
    with pytest.raises(DataError, match=rf"{file}\.parquet: column `{column}` is missing; the file has "):
        validate_folder(folder, now_us=now_us)


@pytest.mark.parametrize(
    ("where", "column", "values", "said"),
    [
        ("log", "user_id", pa.array(range(200), pa.int64()), "column `user_id` is int64; it must be string"),
        ("log", "timestamp", pa.array(range(200), pa.int64()), "column `timestamp` is int64"),
        ("log", "timestamp", pa.array(range(200), pa.timestamp("us")), "its times have no zone"),
        ("log", "value", pa.array(["x"] * 200), "column `value` is string; it must be a number"),
        ("log", "tags", pa.array([["a"]] * 200), "a column holds one string"),
        ("log", "raw", pa.array([b"x"] * 200), "column `raw` is binary"),
        ("log", "User_ID", pa.array(["x"] * 200), "differ only in case"),
        ("log", "__row", pa.array(["x"] * 200), "is reserved"),
        ("shop", "price", pa.array(["1.0"] * 20), "column `price` is string; it must be a number"),
        ("shop", "is_flagged", pa.array(["no"] * 20), "column `is_flagged` is string; it must be bool"),
        ("shop", "category", pa.array(range(20)), "column `category` is int64; it must be string"),
    ],
)
def test_a_wrong_type_is_named_with_file_and_column(make, now_us, where, column, values, said):
    folder = make(**{where: {column: values}})
    with pytest.raises(DataError) as caught:
        validate_folder(folder, now_us=now_us)
    assert said in caught.value.message
    assert {"log": "interactions", "shop": "items"}[where] + ".parquet" in caught.value.message


@pytest.mark.parametrize("file", ["interactions.parquet", "items.parquet"])
@pytest.mark.parametrize("kind", ["empty", "zip", "gzip", "text", "cut", "garbled", "no rows", "absent", "folder"])
def test_a_file_that_is_no_parquet_is_named_with_what_it_is(make, now_us, file, kind):
    folder = make()
    path = folder / file
    content = path.read_bytes()
    path.unlink()
    if kind == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(file, content)
    elif kind == "no rows":
        pq.write_table(pq.read_table(make("other") / file).slice(0, 0), path)
    elif kind == "folder":
        path.mkdir()
    elif kind != "absent":
        path.write_bytes(
            {
                "empty": b"",
                "gzip": b"\x1f\x8b" + content,
                "text": b"a,b\n1,2\n",
                "cut": content[:-20],
                "garbled": b"PAR1" + bytes(300) + b"PAR1",
            }[kind]
        )
    said = {
        "empty": "empty file",
        "zip": "zip archive",
        "gzip": "gzip archive",
        "text": "another format",
        "cut": "damaged",
        "garbled": "damaged",
        "no rows": "no rows",
        "absent": "has no",
        "folder": "",
    }[kind]
    with pytest.raises(DataError) as caught:
        validate_folder(folder, now_us=now_us)
    assert said in caught.value.message
    assert file in caught.value.message


def test_pages_that_are_corrupt_inside_a_good_frame_are_a_data_error(make, now_us):
    folder = make()
    path = folder / "interactions.parquet"
    content = bytearray(path.read_bytes())
    content[4:400] = np.random.default_rng(0).bytes(396)
    path.write_bytes(content)
    with pytest.raises(DataError):
        validate_folder(folder, now_us=now_us)


def test_a_folder_that_is_a_zip_file_or_not_there_says_so(tmp_path, now_us):
    path = tmp_path / "data.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x", "y")
    with pytest.raises(DataError, match="zip archive, not a data-set folder"):
        validate_folder(path, now_us=now_us)
    with pytest.raises(NotFound):
        validate_folder(tmp_path / "nowhere", now_us=now_us)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ("name = ", "not valid TOML"),
        ('name = "x"\n', "positives"),
        ('name = "x"\ncolour = 1\n[[positives]]\nevent = "click"\n', "colour"),
        ('name = "x"\nslices = ["planet"]\n[[positives]]\nevent = "click"\n', "slice `planet` is not a column"),
        (
            'name = "x"\n[[positives]]\nevent = "click"\n'
            '[[features]]\ncolumn = "age"\ntable = "users"\nkind = "numeric"\n',
            "feature `age` is not a column of users.parquet",
        ),
    ],
)
def test_a_wrong_dataset_toml_is_named_with_its_key(make, now_us, config, said):
    with pytest.raises(DataError) as caught:
        validate_folder(make(config=config), now_us=now_us)
    assert said in caught.value.message
    assert "dataset.toml" in caught.value.message


def test_nulls_in_optional_item_columns_get_their_defaults(make, items, now_us):
    folder = make(
        shop={
            "category": _with(items["category"], {0: None}),
            "published_at": _with(items["published_at"], {0: None}),
            "creator_id": pa.nulls(20),
            "is_flagged": pa.array([None] * 20, pa.bool_()),
            "price": pa.array([None, float("nan")] + [1.5] * 18, pa.float32()),
        }
    )
    with checked(folder, now_us=now_us) as check:
        assert check.report.rejected == ()
        table = check.connection.sql(check.accepted["items"] + " ORDER BY item_id").to_arrow_table()
    first = table.to_pylist()[0]
    assert first == {
        "item_id": "i00",
        "category": "unknown",
        "published_at": datetime(1970, 1, 1, tzinfo=UTC),
        "creator_id": None,
        "is_promoted": False,
        "is_flagged": False,
        "title": None,
        "price": None,
    }
    assert table["price"].null_count == 2
    assert table.schema.field("published_at").type == UTC_US


def test_an_item_that_stands_twice_is_kept_once_and_its_events_stay(make, items, now_us):
    folder = make(
        shop={
            "item_id": pa.array([*items["item_id"].to_pylist(), "i03"]),
            "category": pa.array([*items["category"].to_pylist(), "another"]),
            "published_at": pa.array([*items["published_at"].to_pylist(), None], UTC_US),
        },
        config='name = "x"\nmax_reject_share = 0.1\n[[positives]]\nevent = "click"\n',
    )
    report = validate_folder(folder, now_us=now_us)
    assert [(r.table, r.column, r.reason, r.first_rows) for r in report.rejected] == [
        ("items", "item_id", "duplicate", (20,))
    ]


def test_events_of_a_rejected_item_are_of_an_unknown_item(make, items, now_us):
    folder = make(
        shop={"price": pa.array([float("inf")] + [1.0] * 19)},
        config='name = "x"\nmax_reject_share = 0.2\n[[positives]]\nevent = "click"\n',
    )
    report = validate_folder(folder, now_us=now_us)
    assert _only(report, "non_finite").table == "items"
    assert _only(report, "unknown_item").count == 10


def test_dictionary_and_large_string_columns_are_strings(make, interactions, now_us):
    folder = make(
        log={
            "user_id": interactions["user_id"].dictionary_encode(),
            "event": interactions["event"].cast(pa.large_string()),
            "device": pa.array(["ios"] * 200).dictionary_encode(),
        }
    )
    with checked(folder, now_us=now_us) as check:
        schema = check.connection.sql(check.accepted["interactions"]).to_arrow_table().schema
    assert [str(f.type) for f in schema] == [
        "string",
        "string",
        "timestamp[us, tz=UTC]",
        "string",
        "double",
        "string",
    ]


@pytest.mark.parametrize("unit", ["s", "ms", "ns"])
def test_any_unit_of_time_with_a_zone_is_the_same_moment(make, interactions, now_us, unit):
    zone = interactions["timestamp"].cast(pa.timestamp(unit, tz="Europe/Berlin"))
    with checked(make(log={"timestamp": zone}), now_us=now_us) as check:
        found = check.connection.sql(check.accepted["interactions"]).to_arrow_table()["timestamp"].combine_chunks()
    assert found.equals(interactions["timestamp"])


def test_text_that_is_not_utf_8_is_a_data_error(make, now_us):
    wrong = pa.Array.from_buffers(pa.string(), 200, pa.array([b"\xff"] * 200).buffers())
    with pytest.raises(DataError, match="checking"):
        validate_folder(make(log={"user_id": wrong}), now_us=now_us)


def test_times_that_no_clock_can_hold_are_rejected(make, now_us):
    edge = pa.array([2**63 - 1, -(2**63) + 1, *range(198)]).cast(UTC_US)
    found = _only(validate_folder(make(log={"timestamp": edge}), now_us=now_us), "bad_timestamp")
    assert found.first_rows == (0, 1)


def test_a_folder_named_like_a_pattern_is_read_as_itself(make, now_us):
    make("data1")
    folder = make("data[1]*", log={"device": pa.array(["ios"] * 200)})
    with checked(folder, now_us=now_us) as check:
        assert "device" in check.connection.sql(check.accepted["interactions"]).columns


def test_columns_of_ones_own_keep_their_kind(make, now_us):
    own = {
        "a_bool": pa.array([True] * 200),
        "a_date": pa.array([1] * 200, pa.int32()).cast(pa.date32()),
        "a_decimal": pa.array([1] * 200).cast(pa.decimal128(30, 2)),
        "a_null": pa.nulls(200),
        "a_small": pa.array([1] * 200, pa.int8()),
        "a_word": pa.array(["x"] * 200, pa.string_view()),
    }
    with checked(make(log=own), now_us=now_us) as check:
        schema = check.connection.sql(check.accepted["interactions"]).to_arrow_table().schema
    assert [str(schema.field(n).type) for n in own] == ["bool", "date32[day]", "double", "string", "int8", "string"]


def test_column_names_and_values_with_quotes_are_just_text(make, now_us):
    folder = make(log={'it\'s a "name"; DROP': pa.array(["'; DROP TABLE x; --"] * 200)})
    assert validate_folder(folder, now_us=now_us).ok


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    ids=st.lists(st.one_of(st.none(), st.text(max_size=300)), min_size=1, max_size=30),
    values=st.lists(st.one_of(st.none(), st.floats()), min_size=30, max_size=30),
    times=st.lists(st.one_of(st.none(), st.text(max_size=30)), min_size=30, max_size=30),
)
def test_any_ids_values_and_times_are_accepted_or_counted_never_an_error(tmp_path_factory, ids, values, times, now_us):
    folder = tmp_path_factory.mktemp("any")
    rows = len(ids)
    pq.write_table(
        pa.table(
            {
                "user_id": pa.array(ids, pa.string()),
                "item_id": pa.array(["i"] * rows),
                "timestamp": pa.array(times[:rows], pa.string()),
                "event": pa.array(["click"] * rows),
                "value": pa.array(values[:rows], pa.float64()),
            }
        ),
        folder / "interactions.parquet",
    )
    shop = {"item_id": ["i"], "category": ["c"], "published_at": pa.array([None], UTC_US)}
    pq.write_table(pa.table(shop), folder / "items.parquet")
    (folder / "dataset.toml").write_text('name = "x"\nmax_reject_share = 1.0\n[[positives]]\nevent = "click"\n')
    with checked(folder, now_us=now_us) as check:
        kept = check.connection.sql(check.accepted["interactions"]).to_arrow_table()
        bad = check.connection.sql(check.rejects).to_arrow_table()
    assert len(kept) + len(bad) == rows
    assert check.report.rejects("interactions") == len(bad)
    assert all(user and len(user) <= 256 and "\0" not in user for user in kept["user_id"].to_pylist())


def test_a_user_with_a_million_events_is_checked_in_bounded_memory(tmp_path, now_us, monkeypatch):
    monkeypatch.setattr(engine, "MEMORY_LIMIT", "100MB")
    rows = 1_000_000
    rng = np.random.default_rng(0)
    table = pa.table(
        {
            "user_id": pa.array(["busy"] * rows),
            "item_id": pa.array(["a", "b"]).take(pa.array(rng.integers(0, 2, rows))),
            "timestamp": pa.array(np.arange(rows) * 1_000_000, pa.int64()).cast(UTC_US),
            "event": pa.array(["click"] * rows),
        }
    )
    pq.write_table(table, tmp_path / "interactions.parquet")
    shop = {"item_id": ["a", "b"], "category": ["c", "c"], "published_at": pa.array([0, 0], UTC_US)}
    pq.write_table(pa.table(shop), tmp_path / "items.parquet")
    (tmp_path / "dataset.toml").write_text('name = "x"\n[[positives]]\nevent = "click"\n')
    report = validate_folder(tmp_path, now_us=now_us)
    assert report.rows["interactions"] == rows
    assert report.ok
