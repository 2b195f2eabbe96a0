"""`streamrec data` as an operator types it: exit codes, one JSON document, clear errors, nothing half-written."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from cli.main import app

ROOT = Path(__file__).parents[3]
COMMANDS = ("synth", "import online-retail", "import movielens", "validate", "describe")


def run(*words: object):
    return CliRunner().invoke(app, ["data", *map(str, words)])


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("data") / "world"
    assert run("synth", out, "--users", 60, "--items", 40, "--days", 5).exit_code == 0
    return out


@pytest.fixture(scope="module")
def invoices(tmp_path_factory) -> Path:
    """100,000 lines in the form of Online Retail II: long enough to be killed in the middle."""
    rows = 100_000
    path = tmp_path_factory.mktemp("src") / "transactions.parquet"
    pq.write_table(
        pa.table(
            {
                "StockCode": pa.array([f"{20_000 + i % 3_000}" for i in range(rows)]),
                "Description": pa.array([f"THING {i % 3_000}" for i in range(rows)]),
                "Quantity": pa.array([1 + i % 7 for i in range(rows)]),
                "InvoiceDate": pa.array([1_262_304_000 + 60 * i for i in range(rows)]).cast(pa.timestamp("s")),
                "UnitPrice": pa.array([1.5] * rows),
                "CustomerID": pa.array([float(10_000 + i % 5_000) for i in range(rows)]),
                "Country": pa.array(["France"] * rows),
            }
        ),
        path,
    )
    return path


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(command):
    result = run(*command.split(), "--help")
    assert result.exit_code == 0
    assert f"streamrec data {command}" in " ".join(result.output.replace("│", " ").split())


def test_synth_prints_one_json_document(tmp_path):
    result = run("synth", tmp_path / "w", "--users", 30, "--items", 30, "--days", 2, "--seed", 5, "--json")
    assert result.exit_code == 0
    document = json.loads(result.stdout)
    assert document["events"] == len(pq.read_table(tmp_path / "w" / "interactions.parquet"))
    assert document["seed"] == 5


def test_describe_and_validate_print_one_json_document(world):
    described = json.loads(run("describe", world, "--json").stdout)
    assert described["users"] <= 60
    assert described["items"] == 40
    checked = json.loads(run("validate", world, "--json").stdout)
    assert checked["ok"] is True
    assert checked["rejects"] == {"items": 0, "users": 0, "interactions": 0}


def test_describe_is_readable_without_json(world):
    output = run("describe", world).output
    assert "impression" in output
    assert "CC0-1.0" in output


def test_validate_exits_1_with_the_report_the_rejects_file_and_the_next_command(world, tmp_path):
    folder = tmp_path / "bad"
    folder.mkdir()
    for file in ("items.parquet", "users.parquet", "dataset.toml"):
        (folder / file).write_bytes((world / file).read_bytes())
    table = pq.read_table(world / "interactions.parquet")
    users = table["user_id"].to_pylist()
    for row in range(0, len(users), 50):  # 2 %
        users[row] = None
    pq.write_table(table.set_column(0, "user_id", pa.array(users)), folder / "interactions.parquet")
    result = run("validate", folder, "--json")
    assert result.exit_code == 1
    report = json.loads(result.stdout)
    assert report["ok"] is False
    assert report["reasons"][0] | {"count": 0} == {
        "table": "interactions",
        "column": "user_id",
        "reason": "null_id",
        "count": 0,
        "first_rows": [0, 50, 100, 150, 200],
    }
    assert "user_id" in result.stderr
    assert "next:" in result.stderr
    rejects = pq.read_table(folder / "rejects.parquet")
    assert len(rejects) == report["rejects"]["interactions"]


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("describe", "nowhere"), 4, "nowhere is not there"),
        (("validate", "nowhere"), 4, "nowhere is not there"),
        (("import", "online-retail", "nowhere", "out"), 4, "nowhere is not there"),
        (("import", "movielens", "nowhere", "out"), 4, "nowhere is not there"),
        (("synth", "out", "--users", "0"), 2, "--users is 0"),
        (("synth", "out", "--items", "many"), 2, "integer"),
        (("synth", "mine"), 2, "not a data set that this command made"),
        (("import", "movielens", "mine", "out"), 1, "no edition of MovieLens"),
    ],
)
def test_errors_have_their_exit_code_and_no_traceback(tmp_path, monkeypatch, words, code, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("mine")
    result = run(*words)
    assert result.exit_code == code
    assert said in " ".join(result.stderr.split())
    assert "Traceback" not in result.output
    assert [p.name for p in tmp_path.iterdir()] == ["mine"]


def test_help_is_fast_because_nothing_heavy_is_imported():
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "cli", "data", "--help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "typer" in imported
    assert not imported & {"duckdb", "pyarrow", "pandas", "torch", "numpy"}


def _kill_when_it_writes(words: list[str], out: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "cli", "data", *words], cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        deadline = time.monotonic() + 60
        while not list(out.parent.glob(f".{out.name}.partial-*/*")):
            assert process.poll() is None, "it ended before it could be killed"
            assert time.monotonic() < deadline
            os.sched_yield()
        process.send_signal(signal.SIGKILL)
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("what", ["import", "synth"])
def test_killed_in_the_middle_leaves_no_data_set_and_the_same_command_works_again(tmp_path, invoices, what):
    out = tmp_path / "out"
    words = {
        "import": ["import", "online-retail", str(invoices), str(out)],
        "synth": ["synth", str(out), "--users", "500", "--items", "300", "--events", "300000"],
    }[what]
    _kill_when_it_writes(words, out)
    assert not out.exists()
    assert run(*words).exit_code == 0
    assert [p.name for p in tmp_path.iterdir()] == ["out"]
    assert run("validate", out).exit_code == 0


def test_killed_while_replacing_keeps_the_older_result(tmp_path, invoices):
    out = tmp_path / "out"
    words = ["import", "online-retail", str(invoices), str(out)]
    assert run(*words).exit_code == 0
    before = (out / "interactions.parquet").stat().st_ino
    _kill_when_it_writes(words, out)
    assert (out / "interactions.parquet").stat().st_ino == before
    assert run("describe", out).exit_code == 0
