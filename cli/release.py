"""`streamrec release …`: a new Bento, or new rules, reach everyone through evidence; the old one is a command away."""

import time
from collections.abc import Callable
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from cli.control import DryRun, Home, Reason, Token, now_us, open_control
from cli.moments import moment_us
from cli.output import Json, emit, err, errors_end_well, out, table
from contracts.errors import Refused, UsageError
from contracts.settings import load_settings

if TYPE_CHECKING:
    from rich.console import RenderableType

    from registry.releases.commands import Result

app = typer.Typer(no_args_is_help=True)
WATCH_S = 1.0


class Variant(StrEnum):
    champion = "champion"
    candidate = "candidate"
    control = "control"


@app.command()
@errors_end_well
def start(
    tag: Annotated[str | None, typer.Argument(help="The candidate: a Bento built here.")] = None,
    rules: Annotated[Path | None, typer.Option(help="A rules document in place of a Bento.")] = None,
    policy: Annotated[str | None, typer.Option(help="NAME or NAME@VERSION [default: default, or rules]")] = None,
    hypothesis: Annotated[str, typer.Option(help="What the candidate should do better; frozen with the policy.")] = "",
    supersede: Annotated[bool, typer.Option("--supersede", help="In place of the release under way.")] = False,
    accept_inconclusive: Annotated[
        bool, typer.Option("--accept-inconclusive", help="Start although some evidence says `inconclusive`; audited.")
    ] = False,
    reason: Reason = "",
    token: Token = None,
    dry_run: DryRun = False,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Begin a release. With no champion so far: the Bento is promoted after a smoke test.

    Example: `streamrec release start streamrec:latest --policy default`
    """
    from registry.releases import commands

    if (tag is None) == (rules is None):
        raise UsageError("give a Bento's tag or --rules FILE", next_command="streamrec release start --help")
    settings, store, token = open_control(home, token)
    result = commands.start(
        store,
        settings,
        token,
        tag=tag,
        rules=rules,
        policy=policy or ("rules" if rules else "default"),
        hypothesis=hypothesis,
        supersede=supersede,
        accept_inconclusive=accept_inconclusive,
        now_us=now_us(),
        dry_run=dry_run,
        reason=reason,
    )
    _emit(result, dry_run, as_json)


def _do(
    operation: Literal["shadow", "canary", "ab", "promote", "rollback", "pause", "resume"],
    reason: str,
    token: str | None,
    dry_run: bool,
    home: Path | None,
    as_json: bool,
    **more: Any,
) -> None:
    """One of `registry.releases.commands` on the release under way."""
    from registry.releases import commands

    settings, store, token = open_control(home, token)
    apply: Callable[..., Result] = getattr(commands, operation)
    _emit(apply(store, settings, token, now_us=now_us(), dry_run=dry_run, reason=reason, **more), dry_run, as_json)


@app.command()
@errors_end_well
def shadow(
    reason: Reason = "", token: Token = None, dry_run: DryRun = False, home: Home = None, as_json: Json = False
) -> None:
    """Go to the shadow step: mirror requests to the candidate; nobody sees its answers.

    Example: `streamrec release shadow`
    """
    _do("shadow", reason, token, dry_run, home, as_json)


@app.command()
@errors_end_well
def canary(
    weight: Annotated[float | None, typer.Option(help="Percent, one of the policy's steps [default: the next]")] = None,
    reason: Reason = "",
    token: Token = None,
    dry_run: DryRun = False,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Go to a canary step of the plan. Weights never go down: users would move back.

    Example: `streamrec release canary --weight 25`
    """
    _do("canary", reason, token, dry_run, home, as_json, weight=weight)


@app.command()
@errors_end_well
def ab(
    weight: Annotated[float | None, typer.Option(help="Percent, one of the policy's steps [default: the next]")] = None,
    reason: Reason = "",
    token: Token = None,
    dry_run: DryRun = False,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Go to the A/B step of the plan: a fixed split.

    Example: `streamrec release ab`
    """
    _do("ab", reason, token, dry_run, home, as_json, weight=weight)


@app.command()
@errors_end_well
def promote(
    force: Annotated[
        bool, typer.Option("--force", help="Without the evidence that is missing (admin); audited.")
    ] = False,
    reason: Reason = "",
    token: Token = None,
    dry_run: DryRun = False,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Make the candidate champion. Refused (exit 3) with a list of what is missing until all steps have passed.

    Example: `streamrec release promote`
    """
    _do("promote", reason, token, dry_run, home, as_json, force=force)


@app.command()
@errors_end_well
def rollback(
    break_glass: Annotated[
        bool, typer.Option("--break-glass", help="With controller and database gone: a signed order to the gateways.")
    ] = False,
    reason: Reason = "",
    token: Token = None,
    dry_run: DryRun = False,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Everyone back to the champion that the release was started against, at once.

    Example: `streamrec release rollback --reason "complaints from DE"`
    """
    if not break_glass:
        _do("rollback", reason, token, dry_run, home, as_json)
        return
    from registry.access import local_actor
    from registry.releases import commands

    settings = load_settings({"home": home})
    result = commands.break_glass(settings, reason=reason, now_us=now_us(), actor=local_actor().name, dry_run=dry_run)
    _emit(result, dry_run, as_json)


@app.command()
@errors_end_well
def pause(
    reason: Reason = "", token: Token = None, dry_run: DryRun = False, home: Home = None, as_json: Json = False
) -> None:
    """Hold the release where it is: weights stay, nothing advances, a rollback stays armed.

    Example: `streamrec release pause --reason "holiday"`
    """
    _do("pause", reason, token, dry_run, home, as_json)


@app.command()
@errors_end_well
def resume(
    reason: Reason = "", token: Token = None, dry_run: DryRun = False, home: Home = None, as_json: Json = False
) -> None:
    """Go on after a pause.

    Example: `streamrec release resume`
    """
    _do("resume", reason, token, dry_run, home, as_json)


@app.command()
@errors_end_well
def retire(
    tags: Annotated[list[str] | None, typer.Argument(metavar="[TAG]...", help="Bentos to remove.")] = None,
    before: Annotated[
        str | None, typer.Option(help="All that were built before this time, ISO 8601 with a zone.")
    ] = None,
    token: Token = None,
    dry_run: DryRun = False,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Remove old Bentos and the models that only they use. Refused for what a champion, release or experiment needs.

    Example: `streamrec release retire --before 2026-01-01T00:00:00Z`
    """
    from registry.releases import commands

    if not tags and before is None:
        raise UsageError("name Bentos, or give --before", next_command="streamrec release retire --help")
    settings, store, token = open_control(home, token)
    result = commands.retire(
        store,
        settings,
        token,
        tags=tuple(tags or ()),
        before_us=moment_us(before, "--before"),
        now_us=now_us(),
        dry_run=dry_run,
    )
    _emit(result, dry_run, as_json)


@app.command("pass")
@errors_end_well
def make_pass(
    variant: Annotated[Variant | None, typer.Option(help="Of the release under way.")] = None,
    arm: Annotated[list[str] | None, typer.Option(help="EXPERIMENT=ARM; may be repeated.")] = None,
    flag: Annotated[list[str] | None, typer.Option(help="FLAG=on or FLAG=off; may be repeated.")] = None,
    minutes: Annotated[float, typer.Option(min=1, max=60 * 24 * 7, help="How long it holds.")] = 60,
    name: Annotated[str, typer.Option(help="Of the tester.")] = "",
    token: Token = None,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """A tester's pass: a header that forces a variant, arms or flags. Requests with it are no evidence.

    Example: `streamrec release pass --variant candidate --minutes 30`
    """
    from registry.access import authorise
    from registry.keys import existing_signer
    from registry.releases.passes import make_pass as make

    settings, store, token = open_control(home, token)
    if variant is None and not arm and not flag:
        raise UsageError("a pass forces something: --variant, --arm or --flag")
    at_us = now_us()
    actor = authorise(store, token, "releaser", action="release.pass", subject=name or "-", now_us=at_us)
    text = make(
        existing_signer(settings.home),
        variant=variant.value if variant else None,
        experiments=dict(_pair(word) for word in arm or ()),
        flags={key: _on_off(key, value) for key, value in map(_pair, flag or ())},
        now_us=at_us,
        minutes=minutes,
        name=name,
    )
    store.note(actor, "release.pass", name or "-", {"variant": variant and variant.value, "minutes": minutes}, at_us)
    document = {"header": "x-streamrec-pass", "value": text, "expires": _time(at_us + int(minutes * 60e6))}
    emit(document, as_json=as_json, human=lambda: out.print(f"x-streamrec-pass: {text}", soft_wrap=True))


@app.command()
@errors_end_well
def status(
    watch: Annotated[bool, typer.Option("--watch", help="A live table, until Ctrl-C.")] = False,
    limit: Annotated[int, typer.Option(min=1, help="Releases to list.")] = 5,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Champion, releases, and what each metric says: samples, interval, verdict, next move.

    Example: `streamrec release status --watch`
    """
    from registry.releases import commands

    settings, store, _ = open_control(home)

    def now() -> dict[str, Any]:
        return commands.status(store, settings, now_us=now_us(), limit=limit)

    if watch and as_json:
        raise UsageError("--watch is for people: leave out --json")
    if not watch:
        document = now()
        emit(document, as_json=as_json, human=lambda: out.print(_view(document)))
        return
    _watch(now)


def _watch(now: Callable[[], dict[str, Any]]) -> None:
    from rich.live import Live

    with Live(_view(now()), console=out, auto_refresh=False) as live:
        try:
            while True:
                time.sleep(WATCH_S)
                live.update(_view(now()), refresh=True)
        except KeyboardInterrupt:
            return


@app.command()
@errors_end_well
def history(
    subject: Annotated[str | None, typer.Argument(help="A release, an experiment, a token's name.")] = None,
    verify: Annotated[bool, typer.Option("--verify", help="Check the chain of the audit.")] = False,
    limit: Annotated[int, typer.Option(min=1)] = 50,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """The audit: every command, decision and refusal, who gave it and why.

    Example: `streamrec release history --verify`
    """
    _, store, _ = open_control(home)
    problems = list(store.verify()) if verify else []
    entries = store.history(subject, limit)
    document = {
        "entries": [
            {
                "number": e.number,
                "at": _time(e.at_us),
                "actor": e.actor,
                "action": e.action,
                "subject": e.subject,
                "detail": e.detail,
                "digest": e.digest,
            }
            for e in entries
        ],
        "verified": (not problems) if verify else None,
        "problems": problems,
    }

    def human() -> None:
        table(
            "audit",
            ["", "at", "who", "what", "on", "why"],
            [(e.number, _time(e.at_us), e.actor, e.action, e.subject, e.detail.get("reason", "")) for e in entries],
        )
        if verify and not problems:
            out.print(f"the chain is whole, up to entry {entries[-1].number if entries else 0}")
        for problem in problems:
            err.print(f"  {problem}", markup=False)

    emit(document, as_json=as_json, human=human)
    if problems:
        raise Refused("the audit has been tampered with, or is damaged: see above")


def _emit(result: "Result", dry_run: bool, as_json: bool) -> None:
    release = result.release
    document = {**result.document(), **({"dry_run": True} if dry_run else {})}

    def human() -> None:
        for line in result.plan:
            out.print(f"  {line}", markup=False, soft_wrap=True)
        if dry_run:
            return
        if release:
            step = f", {document['step']}" if document["step"] else ""
            out.print(f"[bold]{release.id}[/bold] {document['candidate']}: [bold]{release.state}[/bold]{step}")
        for key, value in result.more.items():
            out.print(f"{key}  {value}", markup=False)
        if result.next:
            out.print(f"  next: {result.next}", markup=False, soft_wrap=True)

    emit(document, as_json=as_json, human=human)


COLOURS = {"pass": "green", "fail": "bold red", "inconclusive": "yellow"}


def _view(document: dict[str, Any]) -> "RenderableType":
    """Champion, the newest releases, and the metrics of the first of them that has any."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    lines: list[RenderableType] = [Text.assemble("champion  ", (str(document["champion"] or "none"), "bold"))]
    controller = document.get("controller")
    lines.append(Text(f"controller  {controller['holder']}" if controller else "controller  not running"))
    lines += [Text(problem, style="red") for problem in document.get("problems", ())]
    releases = Table(title="releases", title_justify="left")
    for column in ("release", "candidate", "state", "step", "weight", "time left", "next"):
        releases.add_column(column, overflow="fold")
    for release in document["releases"]:
        weight = f"{release['weight']:g} %" if release["weight"] else ""
        releases.add_row(
            release["id"], release["candidate"], release["state"], release["step"] or "", weight,
            release.get("time_left") or "", release["next"] or "",
        )  # fmt: skip
    lines.append(releases)
    shown = next((r for r in document["releases"] if r["metrics"]), None)
    if shown:
        metrics = Table(title=f"{shown['id']}: evidence", title_justify="left")
        for column in ("metric", "n", "value", "effect", "interval", "verdict", "why"):
            metrics.add_column(column, overflow="fold")
        for metric in shown["metrics"]:
            interval = metric["ci"] or metric.get("value_ci")
            metrics.add_row(
                metric["name"],
                f"{metric['n']:,}",
                _figure(metric.get("value")),
                _figure(metric["effect"], signed=True),
                f"{_figure(interval[0])} … {_figure(interval[1])}" if interval else "",
                Text(metric["verdict"], style=COLOURS.get(metric["verdict"], "")),
                metric.get("reason", ""),
            )
        lines.append(metrics)
    return Group(*lines)


def _figure(value: float | None, *, signed: bool = False) -> str:
    if value is None:
        return ""
    return f"{value:+.4g}" if signed else f"{value:.4g}"


def _time(at_us: int) -> str:
    return datetime.fromtimestamp(at_us / 1e6, UTC).isoformat(timespec="seconds")


def _pair(word: str) -> tuple[str, str]:
    key, separator, value = word.partition("=")
    if not separator or not key or not value:
        raise UsageError(f"{word!r}: write NAME=VALUE")
    return key, value


def _on_off(key: str, value: str) -> bool:
    if value not in ("on", "off"):
        raise UsageError(f"flag {key} is `on` or `off`, not {value!r}")
    return value == "on"
