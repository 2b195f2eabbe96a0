"""What every command owes: help with an example, `--json`, and a start that loads no heavy library."""

import subprocess
import sys
from collections.abc import Iterator

import click
import pytest
import typer.main

from cli.main import app


def commands(group: click.Command, path: tuple[str, ...] = ()) -> Iterator[tuple[str, click.Command]]:
    subcommands = getattr(group, "commands", None)
    if subcommands is None:
        yield " ".join(path), group
        return
    for name, command in subcommands.items():
        yield from commands(command, (*path, name))


COMMANDS = dict(commands(typer.main.get_command(app)))


def test_the_contract_s_commands_are_there() -> None:
    wanted = {
        *("quickstart", "train", "evaluate", "build", "containerize", "serve", "batch run"),
        *("data synth", "data import online-retail", "data import movielens", "data export"),
        *("data validate", "data describe"),
        *("features list", "features materialize", "features backfill", "features parity"),
        *("models list", "models show", "models lineage", "models verify"),
        *("up", "down", "status", "simulate", "access create", "flags set"),
        *("release start", "release shadow", "release canary", "release ab", "release promote", "release rollback"),
        *("release pause", "release resume", "release retire", "release status", "release history"),
        *("experiment plan", "experiment create", "experiment list", "experiment status"),
        *("experiment analyze", "experiment conclude"),
        *("bench serve", "bench rank", "bench retrieve", "bench batch", "bench gateway"),
    }
    assert wanted <= set(COMMANDS)


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_each_command_has_help_with_an_example_and_json(name: str) -> None:
    command = COMMANDS[name]
    assert f"streamrec {name}" in (command.help or ""), "its help has no example"
    assert "--json" in {o for p in command.params for o in p.opts}


def test_help_starts_without_heavy_libraries() -> None:
    code = (
        "import sys, cli.main\n"
        "heavy = {'torch', 'mlflow', 'bentoml', 'pandas', 'duckdb', 'onnxruntime', 'faiss', 'sklearn', 'scipy'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
