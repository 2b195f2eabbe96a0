"""`streamrec monitor keys|forget|retain`: refusals, plans, and that no secret is printed."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from cli.main import app
from contracts.settings import Settings
from registry.control.sql import control_store


@pytest.fixture
def monitor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.chdir(tmp_path)

    def run(*words: str, code: int = 0) -> Any:
        done = CliRunner().invoke(app, ["monitor", *words, "--home", str(tmp_path / "home"), "--json"])
        assert done.exit_code == code, done.output
        return json.loads(done.stdout) if code == 0 else done.output

    return run


def test_keys_are_made_listed_and_never_shown(monitor: Any, tmp_path: Path) -> None:
    file = ("--file", str(tmp_path / "users.json"))
    assert "no file of user keys" in monitor("keys", "list", code=2)
    assert monitor("keys", "rotate", *file, "--dry-run")["dry_run"] is True
    assert not (tmp_path / "users.json").exists()
    assert monitor("keys", "rotate", *file)["key"] == "k1"
    assert monitor("keys", "rotate", *file)["key"] == "k2"
    listed = monitor("keys", "list", *file)["keys"]
    assert [key["id"] for key in listed] == ["k1", "k2"]
    secret = json.loads((tmp_path / "users.json").read_text())["keys"][0]["secret"]
    assert secret not in json.dumps(listed)


def test_no_key_is_rotated_while_an_experiment_runs(monitor: Any, tmp_path: Path) -> None:
    from contracts.routing import ExperimentRoute

    store = control_store(Settings(home=tmp_path / "home"))
    state = store.load()
    running = state.model_copy(update={"experiments": (ExperimentRoute.model_construct(id="exp-1"),)})

    class Running:
        def load(self) -> Any:
            return running

        def tokens(self) -> list[Any]:
            return []

    from cli import control

    opened = control.Opened(Settings(home=tmp_path / "home"), Running(), None)  # type: ignore[arg-type]
    patch = pytest.MonkeyPatch()
    with patch.context() as patched:
        patched.setattr(control, "open_control", lambda home, token=None: opened)
        assert "experiment exp-1 runs" in monitor("keys", "rotate", "--file", str(tmp_path / "k.json"), code=3)
    assert not (tmp_path / "k.json").exists()


def test_forgetting_and_retaining_an_empty_home_removes_nothing(monitor: Any) -> None:
    assert sum(monitor("forget", "nobody", "--dry-run")["removed"].values()) == 0
    assert sum(monitor("forget", "nobody")["removed"].values()) == 0
    done = monitor("retain")
    assert (done["events"], set(done["days"].values())) == (0, {0})
