"""`streamrec flags …`: feature flags and holdouts at the gateway."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.control import DryRun, Home, Token, now_us, open_control
from cli.output import Json, emit, errors_end_well, table
from contracts.errors import UsageError

if TYPE_CHECKING:
    from registry.control.store import Actor, ControlStore, Role

app = typer.Typer(no_args_is_help=True)


def _open(home: Path | None, token: str | None, action: str, subject: str) -> "tuple[ControlStore, Actor, int]":
    from registry.access import authorise

    _, store, token = open_control(home, token)
    at_us = now_us()
    needs: Role = "viewer" if action.endswith("list") else "releaser"
    return store, authorise(store, token, needs, action=action, subject=subject, now_us=at_us), at_us


@app.command("list")
@errors_end_well
def list_(token: Token = None, home: Home = None, as_json: Json = False) -> None:
    """Flags and holdouts that gateways have.

    Example: `streamrec flags list`
    """
    state = _open(home, token, "flags.list", "-")[0].load()
    document = {
        "flags": [f.model_dump(mode="json") for f in state.flags],
        "holdouts": [h.model_dump(mode="json") for h in state.holdouts],
    }

    def human() -> None:
        table(
            "flags",
            ["flag", "sources off", "rules", "share", "condition"],
            [
                (f.id, ", ".join(f.on.sources_off), f.on.rules, f"{f.coverage:.0%}", json.dumps(f.condition))
                for f in state.flags
            ],
        )
        if state.holdouts:
            table("holdouts", ["holdout", "share"], [(h.id, f"{h.share:.1%}") for h in state.holdouts])

    emit(document, as_json=as_json, human=human)


@app.command("set")
@errors_end_well
def set_(
    name: Annotated[str, typer.Argument()],
    source_off: Annotated[list[str] | None, typer.Option(help="A source to leave out; may be repeated.")] = None,
    rules: Annotated[Path | None, typer.Option(help="A rules document to answer by.")] = None,
    share: Annotated[float, typer.Option(min=0, max=100, help="Percent of the eligible units that have it on.")] = 100,
    condition: Annotated[str, typer.Option(help="On the request's context, as JSON.")] = "{}",
    token: Token = None,
    dry_run: DryRun = False,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Switch a source off, or to another rules document, for a share of the users who fit.

    Example: `streamrec flags set no-trending --source-off trending --share 5 --condition '{"country": "DE"}'`
    """
    from pydantic import ValidationError

    from contracts.routing import Flag, Overrides
    from contracts.rules import RulesDocument
    from registry import consumers

    document = RulesDocument.read(rules) if rules else None
    try:
        flag = Flag(
            id=name,
            on=Overrides(rules=document.digest if document else None, sources_off=tuple(source_off or ())),
            coverage=share / 100,
            condition=json.loads(condition),
        )
    except (ValidationError, ValueError) as error:
        raise UsageError(f"flag {name}: {error}", next_command="streamrec flags set --help") from error
    if not flag.on.sources_off and document is None:
        raise UsageError("a flag switches something: --source-off or --rules")
    if not dry_run:
        store, actor, at_us = _open(home, token, "flag.set", name)
        consumers.set_flag(store, actor, flag, document, at_us)
    emit({**flag.model_dump(mode="json"), **({"dry_run": True} if dry_run else {})}, as_json=as_json)


@app.command()
@errors_end_well
def clear(
    name: Annotated[str, typer.Argument()],
    token: Token = None,
    dry_run: DryRun = False,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Remove a flag.

    Example: `streamrec flags clear no-trending`
    """
    from registry import consumers

    if not dry_run:
        store, actor, at_us = _open(home, token, "flag.clear", name)
        consumers.clear_flag(store, actor, name, at_us)
    emit({"flag": name, "cleared": not dry_run}, as_json=as_json)


@app.command()
@errors_end_well
def holdout(
    name: Annotated[str, typer.Argument()],
    share: Annotated[float, typer.Option(min=0, max=50, help="Percent of the users; 0 ends it.")],
    token: Token = None,
    dry_run: DryRun = False,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Keep a share of the users out of experiments, and out of releases until these are at 100 %.

    Example: `streamrec flags holdout always-champion --share 2`
    """
    from pydantic import ValidationError

    from contracts.routing import Holdout
    from registry import consumers

    try:
        value = Holdout(id=name, share=share / 100)
    except ValidationError as error:
        raise UsageError(f"holdout {name}: {error}") from error
    if not dry_run:
        store, actor, at_us = _open(home, token, "holdout.set", name)
        consumers.set_holdout(store, actor, value, at_us)
    emit({**value.model_dump(mode="json"), **({"dry_run": True} if dry_run else {})}, as_json=as_json)
