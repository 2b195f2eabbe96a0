"""What the commands on the control database share: their options, and the way in."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from contracts.settings import Settings, load_settings

if TYPE_CHECKING:
    from registry.control.store import ControlStore

Home = Annotated[Path | None, typer.Option(help="STREAMREC_HOME")]
Token = Annotated[
    str | None, typer.Option(help="Operator's token [default: STREAMREC_OPERATOR_TOKEN]", show_default=False)
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print the plan and stop.")]
Reason = Annotated[str, typer.Option(help="Kept in the audit.")]


class Opened(NamedTuple):
    settings: Settings
    store: "ControlStore"
    token: str | None


def open_control(home: Path | None, token: str | None = None) -> Opened:
    """Settings, control database and the operator's token. Opens no file yet."""
    from registry.control.sql import control_store

    settings = load_settings({"home": home, "operator_token": token})
    return Opened(settings, control_store(settings), settings.operator_token)


def now_us() -> int:
    return time.time_ns() // 1000
