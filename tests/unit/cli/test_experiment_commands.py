"""`streamrec experiment` as a command: documents, exit codes, the life of an experiment on a real control database."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from cli.experiment import app

FILE = """
hypothesis = "clicks go up"
[route]
id = "no-trending"
[route.treatment]
sources_off = ["trending"]
[[metrics]]
name = "ctr"
kind = "ctr"
direction = "higher"
role = "primary"
[[metrics]]
name = "errors"
kind = "error_rate"
direction = "lower"
"""
ARMS = {
    "metric": "proportion",
    "method": "fixed",
    "alpha": 0.05,
    "split": [0.5, 0.5],
    "arms": {"control": {"n": 10_000, "successes": 500}, "treatment": {"n": 10_000, "successes": 600}},
}


def run(*words: str | Path) -> Result:
    return CliRunner().invoke(app, [str(w) for w in words])


def test_plan_prints_the_document_that_scripts_read() -> None:
    words = "plan --metric proportion --baseline .05 --effect .1 --relative --traffic 10000 --json"
    done = run(*words.split())
    assert done.exit_code == 0
    document = json.loads(done.stdout)
    assert (document["n_control"], document["n_treatment"], document["days"]) == (31_231, 31_231, 7)
    assert document["convention"]


def test_analyze_prints_the_document_that_scripts_read(tmp_path: Path) -> None:
    file = tmp_path / "arms.json"
    file.write_text(json.dumps(ARMS))
    done = run("analyze", "--file", file, "--json")
    assert done.exit_code == 0
    document = json.loads(done.stdout)
    assert document["effect"] == pytest.approx(0.01)
    assert document["verdict"] == "pass"
    for_people = run("analyze", "--file", file)
    assert for_people.exit_code == 0
    assert "pass" in for_people.stdout


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ("plan --effect .1", 2),
        ("plan --effect nan --baseline .05", 2),
        ("plan --effect .01 --baseline .05 --metric median", 2),
        ("plan --effect .01 --baseline .05 --method bayes", 2),
        ("analyze", 2),
        ("analyze a --file b", 2),
        ("analyze --file absent.json", 4),
        ("create absent.toml", 4),
        ("status absent", 4),
        ("conclude absent --decision ship", 4),
    ],
)
def test_what_is_off_ends_with_the_contract_s_exit_code(
    words: str, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(*words.split()).exit_code == code


def test_an_experiment_lives_from_create_to_conclude(tmp_path: Path) -> None:
    home, file = ("--home", tmp_path / "home"), tmp_path / "no-trending.toml"
    file.write_text(FILE)
    assert json.loads(run("create", file, *home, "--dry-run", "--json").stdout)["dry_run"] is True
    assert json.loads(run("list", *home, "--json").stdout) == {"experiments": []}
    assert run("create", file, *home).exit_code == 0
    assert run("create", file, *home).exit_code == 3
    found = json.loads(run("analyze", "no-trending", *home, "--json").stdout)
    assert found["verdict"] == "inconclusive"  # nobody has been seen yet
    assert [m["name"] for m in found["metrics"]] == ["ctr", "errors"]
    assert run("conclude", "no-trending", "--decision", "drop: nobody came", *home).exit_code == 0
    assert run("conclude", "no-trending", "--decision", "ship", *home).exit_code == 3
    document = json.loads(run("status", "no-trending", *home, "--json").stdout)
    assert (document["state"], document["decision"]) == ("concluded", "drop: nobody came")
    assert document["result"]["verdict"] == "inconclusive"
    assert json.loads(run("list", *home, "--json").stdout)["experiments"][0]["id"] == "no-trending"
