import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner, Result

from cli.main import app

DAY = 86_400_000_000


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    count = 60
    times = [10 * DAY + n * DAY // 7 for n in range(count)]
    pq.write_table(
        pa.table(
            {
                "user_id": [f"u{n % 4}" for n in range(count)],
                "item_id": [f"i{n % 5}" for n in range(count)],
                "timestamp": pa.array(times, pa.timestamp("us", "UTC")),
                "event": ["click"] * count,
            }
        ),
        folder / "interactions.parquet",
    )
    items = {
        "item_id": [f"i{n}" for n in range(5)],
        "category": ["c"] * 5,
        "published_at": pa.array([0] * 5, pa.timestamp("us", "UTC")),
    }
    pq.write_table(pa.table(items), folder / "items.parquet")
    (folder / "dataset.toml").write_text('name = "x"\n[[positives]]\nevent = "click"\n')
    return folder


def run(*words: object) -> Result:
    return CliRunner().invoke(app, ["features", *map(str, words)])


def document(result: Result) -> dict[str, object]:
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)
    assert isinstance(found, dict)
    return found


def test_list_shows_every_feature_and_no_problem() -> None:
    listed = document(run("list", "--json"))
    assert listed["problems"] == []
    assert len(listed["features"]) >= 8  # type: ignore[arg-type]
    assert "item_ctr_7d" in run("list").stdout


def test_materialize_fills_the_store_under_home(data: Path, tmp_path: Path) -> None:
    made = document(run("materialize", "--data", data, "--home", tmp_path / "home", "--json"))
    assert (made["users"], made["items"]) == (4, 5)
    assert (tmp_path / "home" / "online.db").exists()


def test_materialize_dry_run_writes_nothing(data: Path, tmp_path: Path) -> None:
    plan = document(run("materialize", "--data", data, "--home", tmp_path / "home", "--dry-run", "--json"))
    assert plan["dry_run"] is True
    assert not (tmp_path / "home").exists()


def test_backfill_writes_one_file(data: Path, tmp_path: Path) -> None:
    target = tmp_path / "h.parquet"
    made = document(
        run(
            "backfill",
            "item_pop_1d",
            "--data",
            data,
            "--since",
            "1970-01-12",
            "--until",
            "1970-01-14",
            "--out",
            target,
            "--json",
        )
    )
    assert (made["rows"], made["moments"]) == (10, 2)
    assert pq.read_table(target).num_rows == 10


def test_parity_reports_what_it_compared(data: Path) -> None:
    found = document(run("parity", "--data", data, "--moments", "40", "--json"))
    assert found["mismatches"] == []
    assert found["user_moments"] == 40


def test_parity_ends_with_3_and_names_the_feature_when_the_two_sides_differ(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from features.online.memory import MemoryStore

    monkeypatch.setattr(MemoryStore, "append_interactions", lambda self, rows: None)
    result = run("parity", "--data", data, "--moments", "40", "--store", "memory", "--json")
    assert result.exit_code == 3
    assert json.loads(result.stdout)["mismatches"][0]["feature"] == "user_last_10_interactions"
    assert "user_last_10_interactions" in result.stderr


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("materialize", "--data", "{tmp}/nowhere"), 4, "data set"),
        (("materialize", "--data", "{data}", "--as-of", "yesterday"), 2, "--as-of"),
        (("materialize", "--data", "{data}", "--as-of", "2999-01-01"), 2, "future"),
        (("backfill", "shoe_size", "--data", "{data}"), 4, "shoe_size"),
        (("parity", "--data", "{data}", "--store", "redis"), 2, "--store"),
        (("parity", "--data", "{data}", "--moments", "0"), 2, "--moments"),
    ],
)
def test_wrong_words_end_with_their_exit_code_and_no_traceback(
    data: Path, tmp_path: Path, words: tuple[str, ...], code: int, said: str
) -> None:
    result = run(*(word.format(tmp=tmp_path, data=data) for word in words))
    assert result.exit_code == code
    assert said in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("store", "code", "said"), [("redis://127.0.0.1:1/0", 5, "127.0.0.1:1"), ("memory", 2, "memory")]
)
def test_materialize_needs_a_store_that_is_there_and_stays(
    data: Path, monkeypatch: pytest.MonkeyPatch, store: str, code: int, said: str
) -> None:
    monkeypatch.setenv("STREAMREC_ONLINE_STORE", store)
    result = run("materialize", "--data", data)
    assert result.exit_code == code
    assert said in result.stderr


def test_a_plan_keeps_the_password_of_the_store_to_itself(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAMREC_ONLINE_STORE", "redis://:hunter2@127.0.0.1:1/0")
    result = run("materialize", "--data", data, "--dry-run", "--json")
    assert json.loads(result.stdout)["online_store"] == "redis://127.0.0.1:1/0"
    assert "hunter2" not in run("materialize", "--data", data).stderr


def _replace_log(data: Path, **columns: pa.Array) -> None:
    log = pq.read_table(data / "interactions.parquet")
    for name, column in columns.items():
        log = log.set_column(log.schema.get_field_index(name), name, column)
    pq.write_table(log, data / "interactions.parquet")


@pytest.mark.parametrize("command", [["materialize"], ["parity"], ["backfill", "item_ctr_7d"]])
def test_a_data_set_that_is_not_there_is_not_found(command: list[str], tmp_path: Path) -> None:
    home = {"STREAMREC_HOME": str(tmp_path / "home")}
    result = CliRunner().invoke(app, ["features", *command, "--data", str(tmp_path / "nope"), "--json"], env=home)
    assert result.exit_code == 4
    assert result.stdout == ""


def test_times_without_a_zone_are_refused(data: Path, tmp_path: Path) -> None:
    times = pq.read_table(data / "interactions.parquet")["timestamp"].cast(pa.timestamp("us"))
    _replace_log(data, timestamp=times)
    result = CliRunner().invoke(
        app, ["features", "materialize", "--data", str(data), "--json"], env={"STREAMREC_HOME": str(tmp_path / "home")}
    )
    assert result.exit_code == 1
    assert "no zone" in result.stderr
    assert not (tmp_path / "home" / "online.db").exists()


def test_rows_without_an_id_make_no_user(data: Path, tmp_path: Path) -> None:
    _replace_log(data, user_id=pa.array([None if n % 4 == 3 else f"u{n % 4}" for n in range(60)]))
    result = CliRunner().invoke(
        app, ["features", "materialize", "--data", str(data), "--json"], env={"STREAMREC_HOME": str(tmp_path / "home")}
    )
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["users"] == 3


def test_a_variable_that_is_no_setting_is_a_usage_error_everywhere(data: Path) -> None:
    for words in (["features", "list"], ["data", "describe", str(data)], ["data", "validate", str(data)]):
        result = CliRunner().invoke(app, [*words, "--json"], env={"STREAMREC_NONSENSE": "1"})
        assert result.exit_code == 2, words
        assert "nonsense" in result.stderr
