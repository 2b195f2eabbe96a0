"""The one module that prints: tables for people, one JSON document for scripts, errors with the next command."""

import functools
import json
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Annotated, Any, ParamSpec, TypeVar

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from contracts.errors import StreamRecError

# Without emoji: `:name:` within an address or a tag is letters.
err = Console(stderr=True, highlight=False, emoji=False)
# A pipe or a file has no width of its own: wide enough that a table of figures keeps its lines.
out = Console(highlight=False, emoji=False, width=None if sys.stdout.isatty() else 140)

Json = Annotated[bool, typer.Option("--json", help="One JSON document on standard output and nothing else.")]


def emit(document: dict[str, Any], *, as_json: bool, human: Callable[[], None] | None = None) -> None:
    """Print `document` as JSON, or call `human` (default: its keys and values)."""
    if as_json:
        sys.stdout.write(json.dumps(document, default=str, allow_nan=False) + "\n")
    elif human:
        human()
    else:
        for key, value in document.items():
            out.print(f"[bold]{key}[/bold]  {escape(str(value))}")


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    grid = Table(title=title, title_justify="left")
    for column in columns:
        grid.add_column(column, overflow="fold")
    for row in rows:  # as they are: what stands in them may have brackets of its own
        grid.add_row(*(Text("" if cell is None else str(cell)) for cell in row))
    out.print(grid)


P = ParamSpec("P")
R = TypeVar("R")


def errors_end_well(command: Callable[P, R]) -> Callable[P, R]:
    """Every command wears this: our errors become one clear message and their exit code."""

    @functools.wraps(command)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return command(*args, **kwargs)
        except StreamRecError as error:
            err.print(f"[bold red]error:[/bold red] {escape(error.message)}", markup=True, soft_wrap=True)
            if error.next_command:
                err.print(f"  next: {error.next_command}", markup=False, soft_wrap=True)
            raise typer.Exit(error.exit_code) from error
        except OSError as error:  # a folder that may not be written, a full disk: the system's word is the reason
            where = f": {error.filename}" if error.filename else ""
            err.print(f"[bold red]error:[/bold red] {escape(f'{error.strerror or error}{where}')}", soft_wrap=True)
            raise typer.Exit(1) from error

    return wrapped
