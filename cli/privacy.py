"""`streamrec monitor forget|retain|keys|labels`: what is kept of users, for how long, and what a label means."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from cli.control import DryRun, Home, Token
from cli.moments import moment_us
from cli.output import Json, emit, err, errors_end_well, out, table
from contracts.errors import Refused, UsageError
from contracts.settings import Settings, load_settings

if TYPE_CHECKING:
    from monitoring.labels.meaning import Meaning

keys = typer.Typer(no_args_is_help=True)


def register(app: typer.Typer) -> None:
    app.add_typer(keys, name="keys", help="Keys that hide users' ids in the service's own logs.")

    @app.command()
    @errors_end_well
    def forget(
        user_id: Annotated[str, typer.Argument(metavar="USER", help="As the service was asked for.")],
        dry_run: DryRun = False,
        home: Home = None,
        as_json: Json = False,
    ) -> None:
        """Remove what the service keeps of one user, under every key, and say what holds the user still.

        Answers that are being written to a segment now are removed when it ends, within minutes: `streamrec monitor
        retain` sees to that, and so does the watch. The same command again ends what a killed one began.

        Example: `streamrec monitor forget u0042 --dry-run`
        """
        from monitoring.privacy.forget import forget as erase

        settings = load_settings({"home": home})
        with err.status(f"forgetting {user_id}"):
            done = erase(settings, user_id, _now_us(), dry_run=dry_run)
        document = {"user_id": user_id, "ids": done.ids, "removed": done.removed, "waiting": done.waiting}
        document |= {"stays": done.stays, "dry_run": dry_run}

        def human() -> None:
            verb = "would be removed" if dry_run else "removed"
            table(f"{user_id}: {verb}", ["what", "how many"], done.removed.items())
            if done.waiting:
                out.print(f"{done.waiting} segments are still written; theirs go when those are rolled, within minutes")
            out.print("not changed:")
            for what in done.stays:
                out.print(f"  {what}", markup=False)

        emit(document, as_json=as_json, human=human)

    @app.command()
    @errors_end_well
    def retain(dry_run: DryRun = False, home: Home = None, as_json: Json = False) -> None:
        """Remove records older than `keep_…_d` and drift pages over `reports_mb`, and end erasures that are under way.

        Example: `streamrec monitor retain --dry-run`
        """
        from monitoring.privacy.upkeep import keep_up

        settings = load_settings({"home": home})
        with err.status("removing what is past its time"):
            done, under_way = keep_up(settings, _now_us(), dry_run=dry_run)
        document = {"days": done.partitions, "events": done.events, "pages": done.pages}
        document |= {"erasures_under_way": under_way, "dry_run": dry_run}
        rows = [(f"days of {name}", n) for name, n in done.partitions.items()]
        rows += [("events", done.events), ("drift pages", done.pages)]
        emit(
            document,
            as_json=as_json,
            human=lambda: table("would be removed" if dry_run else "removed", ["what", "how many"], rows),
        )

    @app.command()
    @errors_end_well
    def labels(
        bento: Annotated[str | None, typer.Option(metavar="TAG", help="[default: the latest built]")] = None,
        data: Annotated[
            list[Path] | None, typer.Option(metavar="DIR", help="A data set that is, or will be, trained on.")
        ] = None,
        policy: Annotated[str | None, typer.Option(help="A release policy: its click and event metrics.")] = None,
        since: Annotated[str | None, typer.Option(metavar="T", help="Compare rows of answers from then on.")] = None,
        home: Home = None,
        as_json: Json = False,
    ) -> None:
        """Whether the model, the data sets and the metrics mean the same by a label; with --data an export, row by row.

        Exit code 3: they do not.

        Example: `streamrec monitor labels --data data/own --policy default`
        """
        settings = load_settings({"home": home})
        found, counts = _labels(settings, bento, data or [], policy, since)
        document = {
            "verdict": found.verdict,
            "why": found.why,
            "mismatches": list(found.mismatches),
            "rows": found.rows,
            "different": found.different,
            "examples": [dict(example) for example in found.examples],
            "events": counts,
        }

        def human() -> None:
            out.print(f"[bold]{found.verdict}[/bold]  {escape(found.why)}")
            for what in found.mismatches:
                out.print(f"  {what}", markup=False)
            if found.rows:
                out.print(f"{found.rows:,} shown items compared, {found.different:,} labelled otherwise")
            if counts:
                table("positive events of the time", ["went", "events"], counts.items())

        emit(document, as_json=as_json, human=human)
        if found.verdict == "breach":
            raise typer.Exit(3)


def _labels(
    settings: Settings, bento: str | None, data: list[Path], policy: str | None, since: str | None
) -> "tuple[Meaning, dict[str, int]]":
    from contracts.dataset import DatasetConfig
    from contracts.user_keys import UserKeys
    from features.labels import LabelRule
    from monitoring.labels.joined import Joined
    from monitoring.labels.meaning import compare, compare_rows, rule_of_bento
    from registry.releases.catalogue import read_policy

    learned = rule_of_bento(bento, settings.home)
    datasets = {str(folder): LabelRule.of(DatasetConfig.read(folder)) for folder in data}
    metrics = read_policy(policy, settings.home)[0].metrics if policy else ()
    rows, counts = None, {}
    if data:
        joined = Joined.open(
            settings.home,
            learned,
            moment_us(since, "--since"),
            now_us=_now_us(),
            event_log=settings.event_log,
            keys=UserKeys.of(settings.user_keys),
        )
        with err.status("joining events to what was shown"):
            online = joined.table(["request_id", "item_id", "label"])
            if online.num_rows:
                rows = compare_rows(online, data[0], learned)
        counts = {**joined.events, "misplaced": joined.misplaced}
    return compare(learned, datasets, metrics, rows), counts


@keys.command()
@errors_end_well
def rotate(
    target: Annotated[Path | None, typer.Option("--file", help="[default: the setting `user_keys`]")] = None,
    home: Home = None,
    token: Token = None,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """A new key hides users from now on; the old ones stay, so that whoever they hid can be found and forgotten.

    Refused while a release or an experiment runs: its users would be others than before. The first key makes the file.

    Example: `streamrec monitor keys rotate --file secrets/users.json`
    """
    from cli.control import open_control
    from contracts.user_keys import rotate as add
    from registry.access import authorise

    settings, store, token = open_control(home, token)
    authorise(store, token, "admin", action="keys.rotate", subject="users", now_us=_now_us())
    path = _file(settings, target)
    state = store.load()
    if state.release and state.release.active:
        raise Refused(f"release {state.release.id} runs", next_command="streamrec release status")
    if state.experiments:
        raise Refused(f"experiment {state.experiments[0].id} runs", next_command="streamrec experiment conclude ID")
    document: dict[str, Any] = {"file": str(path), "dry_run": dry_run}
    if not dry_run:
        document["key"] = add(path, _now_us()).id
    said = "would get a further key" if dry_run else f"{document.get('key')} hides from now on"
    emit(document, as_json=as_json, human=lambda: out.print(f"{path}: {said}", markup=False))
    if not dry_run and settings.user_keys is None:
        err.print(f"next: STREAMREC_USER_KEYS={path} for every process of the service")


@keys.command("list")
@errors_end_well
def list_(
    target: Annotated[Path | None, typer.Option("--file", help="[default: the setting `user_keys`]")] = None,
    home: Home = None,
    as_json: Json = False,
) -> None:
    """Which keys there are, and since when each hides; never what they are.

    Example: `streamrec monitor keys list`
    """
    from contracts.user_keys import read_keys

    path = _file(load_settings({"home": home}), target)
    found = [{"id": key.id, "since_us": key.since_us} for key in read_keys(path)]
    emit(
        {"file": str(path), "keys": found},
        as_json=as_json,
        human=lambda: table(str(path), ["key", "hides since (µs, UTC)"], [tuple(key.values()) for key in found]),
    )


def _file(settings: Settings, target: Path | None) -> Path:
    path = target or settings.user_keys
    if path is None:
        raise UsageError("no file of user keys: give --file, or set user_keys")
    return path


def _now_us() -> int:
    return time.time_ns() // 1000
