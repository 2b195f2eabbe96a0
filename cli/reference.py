"""`python -m cli.reference` writes docs/commands.md and the table of settings in docs/serving.md, from the code."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer.main

from cli.main import app
from contracts.settings import PREFIX, Settings

COMMANDS = Path("docs/commands.md")
SETTINGS = Path("docs/serving.md")
SETTINGS_TABLE = re.compile(r"(?<=<!-- settings -->\n).*?(?=<!-- /settings -->)", re.DOTALL)

HEAD = """\
# Commands

<!-- Made by `python -m cli.reference`; a test compares. -->

`streamrec COMMAND --help` has every option. Each command takes `--json`: one JSON document on standard output and
nothing else; progress goes to standard error.

| exit code | means |
|---|---|
| 0 | done |
| 1 | failed |
| 2 | wrong words, or a wrong key in the settings |
| 3 | refused by a gate or a fit check; nothing has changed |
| 4 | not found |
| 5 | unreachable: a server, a store or a tool does not answer |

| command | does | for example |
|---|---|---|
"""


def commands() -> str:
    """The whole of docs/commands.md."""
    rows = []
    for path, command in _commands(typer.main.get_command(app)):
        words = " ".join((command.help or "").split())
        does = re.split(r"(?<=\.) ", words.partition(" Example: ")[0])[0]
        example = re.search(r"Example: (`.+?`)", words)
        rows.append(f"| `{path}` | {does} | {example[1] if example else ''} |\n")
    return HEAD + "".join(rows)


def settings() -> str:
    """The table of docs/serving.md."""
    rows = ["| in `streamrec.toml` | variable | default | what it is |\n|---|---|---|---|\n"]
    for name, setting in Settings.model_fields.items():
        default = "" if setting.default is None else f"`{setting.default}`"
        rows.append(f"| `{name}` | `{PREFIX}{name.upper()}` | {default} | {setting.description or ''} |\n")
    return "".join(rows)


def with_settings(page: str) -> str:
    """`page` with the table of today between its two marks."""
    return SETTINGS_TABLE.sub(lambda _: settings(), page)


def _commands(group: Any, path: tuple[str, ...] = ("streamrec",)) -> Iterator[tuple[str, Any]]:
    subcommands = getattr(group, "commands", None)
    if subcommands is None:
        yield " ".join(path), group
        return
    for name, command in subcommands.items():
        yield from _commands(command, (*path, name))


if __name__ == "__main__":
    COMMANDS.write_text(commands())
    SETTINGS.write_text(with_settings(SETTINGS.read_text()))
