"""`streamrec features`: definitions, materialisation, history, parity."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from cli.moments import moment_us
from cli.output import Json, emit, err, errors_end_well, out, table
from contracts.errors import NotFound, Refused, UsageError

app = typer.Typer(no_args_is_help=True)

Data = Annotated[Path, typer.Option("--data", metavar="DIR", help="A data-set folder.")]
Home = Annotated[Path | None, typer.Option(help="STREAMREC_HOME for this run.")]
SHOWN = 20  # mismatches on the terminal; all are in the JSON
KEPT = 300  # characters of a value in a mismatch


@app.command("list")
@errors_end_well
def list_(as_json: Json = False) -> None:
    """Show every feature and whatever is inconsistent about the definitions.

    Example: `streamrec features list --json`
    """
    from contracts.settings import load_settings
    from features.registry import REGISTRY

    load_settings()  # nothing is taken from it, but a wrong key is an error here too
    document = {
        "hash": REGISTRY.hash,
        "problems": REGISTRY.report(),
        "features": [
            {
                "name": d.name,
                "entity": d.entity,
                "dtype": d.dtype,
                "kind": d.kind,
                "default": d.default,
                "ttl_s": d.ttl_s,
                "owner": d.owner,
                "description": d.description,
                "version": d.version,
            }
            for d in REGISTRY
        ],
    }

    def human() -> None:
        table(
            f"features, hash {REGISTRY.hash[:12]}",
            ("name", "kind", "default", "TTL", "description"),
            ((d.name, d.kind, _default(d.default), _hours(d.ttl_s), d.description) for d in REGISTRY),
        )
        for problem in REGISTRY.report():
            out.print(f"[red]{problem}[/red]")

    emit(document, as_json=as_json, human=human)


@app.command()
@errors_end_well
def materialize(
    data: Data,
    as_of: Annotated[
        str | None, typer.Option("--as-of", metavar="T", help="Moment; the log is whole up to it [default: its end].")
    ] = None,
    bento: Annotated[
        str | None, typer.Option(metavar="TAG", help="Its two-tower gives the embeddings [default: the latest built].")
    ] = None,
    home: Home = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan and stop.")] = False,
    as_json: Json = False,
) -> None:
    """Compute the features of a log as of one moment and write them into the online store.

    Embeddings come from a Bento's two-tower; with no Bento built yet they are left as they are. Running it again is
    safe: an older value never overwrites a newer one.

    Example: `streamrec features materialize --data data/retail --as-of 2011-07-06T11:22:00Z`
    """
    from contracts.settings import load_settings
    from features.materialize import materialize as run
    from features.offline.log import open_log
    from features.online.open import open_store
    from features.online.url import without_secrets
    from training.embeddings import as_features

    settings = load_settings({"home": home})
    if settings.online_store == "memory":
        raise UsageError("the memory store ends with this command: materialize into sqlite or a redis:// URL")
    with open_log(data) as log:
        end = log.span_us()[1] + 1
    moment = end if as_of is None else moment_us(as_of, "--as-of") or 0
    if moment > max(end, time.time_ns() // 1_000):
        raise UsageError(f"--as-of {as_of} is in the future: values stamped with it would never grow old")
    retrieval = _retrieval_bundle(settings, bento)
    plan = {
        "data": str(data),
        "as_of": _iso(moment),
        "online_store": without_secrets(settings.online_store),
        "home": str(settings.home),
        "embeddings": None if retrieval is None else retrieval.name,
    }
    if dry_run:
        emit({**plan, "dry_run": True}, as_json=as_json)
        return
    err.print(f"features of {data} as of {_iso(moment)} → {plan['online_store']} store", markup=False)
    store = open_store(settings)
    try:
        users, items = (None, None) if retrieval is None else as_features(retrieval, data, moment)
        with _bar("users") as progress:
            made = run(data, store, moment, user_embeddings=users, item_embeddings=items, progress=progress)
    finally:
        store.close()
    emit(
        {**plan, "users": made.users, "items": made.items, "item_snapshot": made.item_snapshot}
        | {"feature_hash": made.feature_hash},
        as_json=as_json,
    )


def _retrieval_bundle(settings: Any, bento: str | None) -> Path | None:
    """The Bento's retrieval model; None where none was asked for and none is built."""
    from registry.builds import bundles_of

    if settings.bundles is not None and bento is None:
        return Path(settings.bundles) / "retrieval"
    try:
        return bundles_of(bento, settings.home)["retrieval"]
    except NotFound:
        if bento is not None:
            raise
        return None


@app.command()
@errors_end_well
def backfill(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A feature.")],
    data: Data,
    since: Annotated[str | None, typer.Option(metavar="T", help="First moment [default: the log's].")] = None,
    until: Annotated[str | None, typer.Option(metavar="T", help="Before this moment [default: the log's end].")] = None,
    every_hours: Annotated[float, typer.Option(min=0.01, help="Distance of the moments.")] = 24.0,
    target: Annotated[Path | None, typer.Option("--out", help="Parquet file [default: NAME.parquet].")] = None,
    as_json: Json = False,
) -> None:
    """Compute a feature's history again and write it as Parquet: entity, timestamp_us, value.

    Example: `streamrec features backfill item_ctr_7d --data data/world --since 2025-01-01 --until 2025-02-01`
    """
    from contracts.settings import load_settings
    from features.backfill import backfill as run

    load_settings()
    with _bar("moments") as progress:
        made = run(
            name,
            data,
            target or Path(f"{name}.parquet"),
            since_us=moment_us(since, "--since"),
            until_us=moment_us(until, "--until"),
            every_us=int(every_hours * 3_600_000_000),
            progress=progress,
        )
    emit(
        {"feature": made.feature, "out": str(made.out), "rows": made.rows, "moments": made.moments}
        | {"since": _iso(made.since_us), "until": _iso(made.until_us)},
        as_json=as_json,
    )


@app.command()
@errors_end_well
def parity(
    data: Data,
    moments: Annotated[int, typer.Option(min=1, max=100_000, help="Random (user, moment) pairs.")] = 1_000,
    seed: Annotated[int, typer.Option(help="The same seed draws the same moments.")] = 0,
    store: Annotated[str, typer.Option(help="`memory` or `sqlite`: which adapter is replayed through.")] = "sqlite",
    as_json: Json = False,
) -> None:
    """Replay a log through the online path and compare it, value by value, with the offline join.

    Exit code 3 if they differ. Works in a scratch store; the one that serves is not touched.

    Example: `streamrec features parity --data data/retail --moments 1000`
    """
    from tempfile import TemporaryDirectory

    from contracts.settings import load_settings
    from features.online.memory import MemoryStore
    from features.online.sqlite import SqliteStore
    from features.parity import parity as run

    load_settings()
    if store not in ("memory", "sqlite"):
        raise UsageError(f"--store is {store!r}: it must be memory or sqlite")
    with TemporaryDirectory(prefix="streamrec-parity-") as scratch, _bar("moments") as progress:
        adapter = MemoryStore() if store == "memory" else SqliteStore(Path(scratch))
        result = run(data, adapter, moments=moments, seed=seed, progress=progress)
        adapter.close()
    document: dict[str, Any] = {
        "data": str(data),
        "store": store,
        "seed": seed,
        "user_moments": result.user_moments,
        "item_moments": result.item_moments,
        "values": sum(result.values.values()),
        "mismatches": [
            {
                "entity": m.entity,
                "id": m.id,
                "timestamp": _iso(m.timestamp_us),
                "feature": m.feature,
                "online": str(m.online)[:KEPT],
                "offline": str(m.offline)[:KEPT],
            }
            for m in result.mismatches
        ],
        "features": {
            name: {
                "compared": count,
                "default": result.defaults[name],
                "stale": result.stale[name],
                "mismatches": sum(m.feature == name for m in result.mismatches),
            }
            for name, count in sorted(result.values.items())
        },
    }

    def human() -> None:
        table(
            f"online against offline: {document['values']:,} values at {result.user_moments:,} (user, moment)"
            f" and {result.item_moments:,} (item, moment) pairs",
            ("feature", "compared", "default on both", "past its TTL", "mismatches"),
            ((name, *row.values()) for name, row in document["features"].items()),
        )
        if result.mismatches:
            table(
                f"the first {min(SHOWN, len(result.mismatches))} of {len(result.mismatches)} mismatches",
                ("entity", "id", "moment", "feature", "online", "offline"),
                (tuple(m.values()) for m in document["mismatches"][:SHOWN]),
            )

    emit(document, as_json=as_json, human=human)
    if result.mismatches:
        names = ", ".join(sorted({m.feature for m in result.mismatches}))
        raise Refused(
            f"{len(result.mismatches)} of {document['values']} values differ between online and offline: {names}",
            next_command=f"streamrec features parity --data {data} --seed {seed} --json",
        )


def _iso(moment_us: int) -> str:
    return datetime.fromtimestamp(moment_us / 1e6, UTC).isoformat()


def _hours(ttl_s: float | None) -> str:
    return "–" if ttl_s is None else f"{ttl_s / 3600:g} h"


def _default(value: Any) -> str:
    return "empty" if value == () else f"{value:g}"


@contextmanager
def _bar(what: str) -> Iterator[Any]:
    """A progress callback (done, total) on standard error."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    with Progress(
        TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), console=err, transient=True
    ) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
