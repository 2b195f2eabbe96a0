"""What evidence tells an operator to type is a command that this CLI takes, to the point where its work begins."""

import shlex

import pytest
from typer.testing import CliRunner

from cli.main import app
from contracts.checklist import BUILD, CHECK, CHECKLIST, TRAIN, UNTIL
from training.baseline_checks import baselines, metrics, union
from training.checks import export_equality
from training.leakage.overlap import no_overlap

PLACES = {"DIR": "shop", "T": "2024-12-25", "BENTO-OR-MODEL": "streamrec-ranking@challenger"}
COMMANDS = {
    TRAIN: "training.pipeline.train",
    UNTIL: "training.pipeline.train",
    CHECK: "cli.models._open",
    BUILD: "registry.builds.make_plan",
}


class Reached(Exception):
    """The command began its work."""


@pytest.mark.parametrize("command", COMMANDS)
def test_the_cli_takes_it(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def began(*_: object, **__: object) -> None:
        raise Reached

    monkeypatch.setattr("cli.train._tame_libraries", lambda: None)  # it is for good
    monkeypatch.setattr(COMMANDS[command], began)
    program, *words = (PLACES.get(word, word) for word in shlex.split(command))
    assert program == "streamrec"
    result = CliRunner().invoke(app, words)
    assert isinstance(result.exception, Reached), result.output


def test_the_checklist_and_what_could_not_be_measured_name_no_other() -> None:
    nothing = [metrics(None), baselines(None), union(None), export_equality("x", None), no_overlap((), (), None)]
    assert {item.command for item in CHECKLIST} | {check.command for check in nothing} <= set(COMMANDS)
