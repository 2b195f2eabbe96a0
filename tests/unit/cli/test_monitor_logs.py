"""`monitor drift`, `report` and `slices` over the home's own log, as scripts and people read them."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from benchmarks.watch_log import MINUTE_US, World, write_log
from cli.main import app
from monitoring.drift.service import run as drift_runs
from monitoring.frames.reference import read_reference

SINCE_US = 1_760_000_000_000_000


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    from benchmarks.watch_log import Drift, write_reference

    world = World.draw(0, items=300, users=2_000)
    folder = write_reference(tmp_path / "reference", world, rows=10_000)
    until_us = SINCE_US + 60 * MINUTE_US
    write_log(tmp_path, world, requests=500, since_us=SINCE_US, until_us=until_us, drift=Drift(price=3.0))
    monkeypatch.setattr("monitoring.quiet.be_quiet", lambda: None)  # the tests' own process keeps its priority
    reference = read_reference(folder, "", "models:/streamrec-ranking/1")
    monkeypatch.setattr(drift_runs, "load_reference", lambda *_, **__: reference)
    monkeypatch.setenv("STREAMREC_HOME", str(tmp_path))
    return tmp_path


def ask(*words: str, code: int = 0) -> str:
    done = CliRunner().invoke(app, ["monitor", *words])
    assert done.exit_code == code, done.output
    return done.output


def test_drift_over_the_logs_is_one_document_with_its_signals(home: Path):
    said = json.loads(ask("drift", "--last", "400", "--engine", "scipy", "--out", str(home / "d.json"), "--json"))
    assert (said["verdict"], said["rows"]) == ("drift", 8_000)
    assert said["features"]["input.log_price"]["drift"] is True
    assert {s["model"] for s in said["signals"]} == {"streamrec-ranking/1"}
    assert json.loads((home / "d.json").read_text()) == said


def test_drift_over_the_logs_names_the_columns_for_people(home: Path):
    assert "log_price" in ask("drift", "--since", "2025-10-01", "--until", "2025-10-31", "--engine", "scipy")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--reference", "a.parquet"], "go together"),
        (["--since", "2025-10-02", "--until", "2025-10-01"], "ends before it begins"),
        (["--since", "2025-10-02", "--last", "5"], "both say"),
        (["--season", "moon"], "there are hour, weekday, year"),
    ],
)
def test_words_that_do_not_fit_are_usage_errors(home: Path, words: list[str], message: str):
    assert message in " ".join(ask("drift", *words, code=2).split())


def test_slices_without_a_bento_say_what_to_do(home: Path):
    assert "next:" in ask("slices", "--last", "10", code=4)
