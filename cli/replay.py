"""`streamrec replay`."""

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.output import Json, emit, err, errors_end_well, out, table
from contracts.errors import NotFound
from contracts.settings import Settings, load_settings

if TYPE_CHECKING:
    from monitoring.replay.replay import Replay


def register(app: typer.Typer) -> None:
    app.command("replay")(replay)


@errors_end_well
def replay(
    request_id: Annotated[str, typer.Argument(metavar="REQUEST_ID", help="Of an answer of this home.")],
    bento: Annotated[
        str | None, typer.Option(metavar="OTHER", help="Give the same request to this Bento too, and compare.")
    ] = None,
    home: Annotated[Path | None, typer.Option(help="Where logs, states and Bentos are.")] = None,
    as_json: Json = False,
) -> None:
    """The same answer again, from its record: each stage with its input and its output, and whether it is as logged.

    Exit code 1: the answer differs; 4: no log has the request. `inconclusive` says what is gone.

    Example: `streamrec replay 01a2047b-0ac7-7fe7-8075-9155bb00a207`
    """
    settings = load_settings({"home": home})
    from contracts.user_keys import UserKeys
    from monitoring.replay.record import logged
    from monitoring.replay.replay import Replayer
    from monitoring.replay.users import who

    replayer = Replayer(settings.home, lambda tag: _bundles(settings, tag), who(UserKeys.of(settings.user_keys)))
    try:
        found = replayer.replay(logged(settings.home, request_id), bento)
    finally:
        replayer.close()
    emit(found.document(), as_json=as_json, human=lambda: _show(found))
    if found.verdict == "different":
        raise typer.Exit(1)


def _bundles(settings: Settings, tag: str) -> tuple[str, Mapping[Any, Path]]:
    """An answer of a checkout names no Bento: its bundles are those of the settings."""
    from registry.artifacts import KINDS

    if tag == "unbuilt":
        if settings.bundles is None:
            raise NotFound(
                "the record names no Bento, as bundles in a folder answered",
                next_command="STREAMREC_BUNDLES=DIR streamrec replay …",
            )
        return tag, {kind: settings.bundles.absolute() / kind for kind in KINDS}
    from registry.bento_store import bento_path, bundles_of

    full, _ = bento_path(tag, settings.home)
    return full, bundles_of(full, settings.home)


def _show(found: "Replay") -> None:
    style = {"same": "green", "different": "red"}.get(found.verdict, "yellow")
    out.print(f"[bold {style}]{found.verdict}[/]  {found.why}", soft_wrap=True)
    out.print(f"{found.bento}  {found.degradation}")
    for what in found.unlike:
        err.print(f"not as then: {what}", markup=False, soft_wrap=True)
    if found.stages:
        rows = [(s.stage, _words(s.input), _words(s.output), _mark(s.same, s.differences)) for s in found.stages]
        table("stages", ("stage", "input", "output", "as logged"), rows)
    slate = [(place, row["item_id"], row["score"]) for place, row in enumerate(found.slate, start=1)]
    table("slate, as logged", ("position", "item", "score"), slate)
    if found.other is not None:
        apart = [(d["stage"], "yes" if d["same"] else "no", _difference(d)) for d in found.other["difference"]]
        table(f"{found.bento} against {found.other['bento']}", ("stage", "same", "difference"), apart)
        items = [(place, row["item_id"], row["score"]) for place, row in enumerate(found.other["slate"], start=1)]
        table(f"slate of {found.other['bento']}", ("position", "item", "score"), items)


NOT_TOLD = ("scores", "sources", "features")  # in `--json`; a table would drown in them


def _words(part: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {_short(name, value)}" for name, value in part.items() if _told(name, value))


def _told(name: str, value: Any) -> bool:
    return name not in NOT_TOLD and value not in ([], {})


def _short(name: str, value: Any) -> str:
    match value:
        case list() if len(value) > 3:
            return f"{len(value)}: {' '.join(map(str, value[:3]))} …"
        case list():
            return " ".join(map(str, value))
        case dict():
            return " ".join(f"{key}={inner}" for key, inner in value.items())
        case int() if name == "clock_us":
            return datetime.fromtimestamp(value / 1e6, UTC).isoformat(timespec="milliseconds")
        case str() if name == "digest":
            return value[:12]
    return str(value)


def _mark(same: bool | None, differences: tuple[str, ...]) -> str:
    if same is None:
        return "–"
    return "yes" if same else "; ".join(("no", *differences))


def _difference(found: Mapping[str, Any]) -> str:
    if "missing_in" in found:
        return f"not in the {found['missing_in']} one"
    if "changed" in found:
        return ", ".join(found["changed"])
    if "common" not in found:
        return ""
    sides = (("only here", "only_named"), ("only there", "only_other"))
    only = [f"{words} {len(found[key])} ({' '.join(found[key][:3])})" for words, key in sides if found[key]]
    return ", ".join([f"{found['common']} in both", *only, *([f"{found['moved']} moved"] if found["moved"] else [])])
