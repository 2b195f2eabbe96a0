"""`streamrec bench`."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from cli.output import Json, emit, err, errors_end_well, out, table
from cli.processes import ended_by_signals
from contracts.errors import UsageError
from contracts.settings import load_settings

app = typer.Typer(no_args_is_help=True)
STEPS = {"items": "sizes", "candidates": "counts", "clients": "counts"}

Pairs = Annotated[int, typer.Option(min=1, help="Rounds; in each, everything that is compared runs once.")]
Seconds = Annotated[float, typer.Option(min=0.5, help="Of each run.")]
Users = Annotated[int, typer.Option(min=10, help="Of the reference world.")]
Items = Annotated[int, typer.Option(min=100, help="Of the reference world.")]
Save = Annotated[Path | None, typer.Option("--save", metavar="FILE", help="Write the JSON document here too.")]


@app.callback()
def group() -> None:
    """Side-by-side measurements on the reference workload."""


@app.command("serve")
@errors_end_well
def serve(
    peers: Annotated[
        str, typer.Option(help="Beside these, by commas: fastapi, bentoml_graph, ray_serve.", metavar="NAMES")
    ] = "",
    pairs: Pairs = 10,
    seconds: Seconds = 4.0,
    clients: Annotated[int, typer.Option(min=1, max=1024, help="Connections of the closed loop.")] = 4,
    users: Users = 50_000,
    items: Items = 200_000,
    extras: Annotated[
        bool, typer.Option(help="Also overload, the lowest rungs, start times and a second worker.")
    ] = True,
    growth: Annotated[
        Literal["items", "candidates", "clients"] | None,
        typer.Option(help="Instead: a table of how the figures grow with one of these."),
    ] = None,
    steps: Annotated[str | None, typer.Option(metavar="NUMBERS", help="Of --growth, by commas [default: all].")] = None,
    save: Save = None,
    as_json: Json = False,
) -> None:
    """Throughput, latency and CPU of the service on one core, each figure beside its peers in the same run.

    Example: `streamrec bench serve --peers fastapi,bentoml_graph,ray_serve --pairs 10 --json`
    """
    from benchmarks import contestants
    from benchmarks.serve import Plan, run

    names = tuple(name for name in peers.split(",") if name)
    if unknown := sorted(set(names) - set(contestants.PEERS)):
        raise UsageError(f"there is no peer {unknown[0]}; there are {', '.join(contestants.PEERS)}")
    plan = Plan(_cache(), names, pairs, seconds, clients, _size(users, items), extras)
    with ended_by_signals(), err.status("the reference workload") as status:
        if growth is None:
            document = run(plan, lambda text: status.update(text), lambda so_far: _saved(so_far, save))
        else:
            from benchmarks.growth import GROWTHS

            chosen = {} if steps is None else {STEPS[growth]: _numbers(steps)}
            document = GROWTHS[growth](plan, lambda text: status.update(text), **chosen)
    _saved(document, save)
    emit(document, as_json=as_json, human=(lambda: _served(document)) if growth is None else None)


@app.command("rank")
@errors_end_well
def rank(
    pairs: Pairs = 20,
    users: Users = 50_000,
    items: Items = 200_000,
    save: Save = None,
    as_json: Json = False,
) -> None:
    """DCN-V2 over 500 rows in one thread: the graph that serves beside the plain export, in time and in order.

    Example: `streamrec bench rank --pairs 20 --json`
    """
    from benchmarks.rank import run

    with err.status("graphs in turn") as status:
        document = run(_size(users, items), _cache(), pairs, lambda text: status.update(text))
    _saved(document, save)
    emit(document, as_json=as_json, human=lambda: _ranked(document))


@app.command("retrieve")
@errors_end_well
def retrieve(
    pairs: Pairs = 10,
    sizes: Annotated[str, typer.Option("--items", metavar="NUMBERS", help="Catalogues, by commas.")] = "20000,200000",
    queries: Annotated[int, typer.Option(min=10, help="A round.")] = 200,
    save: Save = None,
    as_json: Json = False,
) -> None:
    """The nearest 200 of a catalogue in one thread: ours beside FAISS as it comes, with recall against exact search.

    Example: `streamrec bench retrieve --items 200000 --json`
    """
    from benchmarks.retrieve import run

    with err.status("searches in turn"):
        document = run(_numbers(sizes), queries=queries, rounds=pairs)
    _saved(document, save)
    emit(document, as_json=as_json, human=lambda: _retrieved(document))


@app.command("gateway")
@errors_end_well
def gateway(
    pairs: Pairs = 5,
    seconds: Annotated[int, typer.Option(min=1, help="Of each run.")] = 4,
    clients: Annotated[int, typer.Option(min=1, max=1024, help="Connections of the closed loop.")] = 8,
    items: Items = 20_000,
    shadow: Annotated[bool, typer.Option("--shadow", help="What a shadow does to p99, instead.")] = False,
    save: Save = None,
    as_json: Json = False,
) -> None:
    """What the gateway adds to a request, against the same Bento asked directly.

    Example: `streamrec bench gateway --pairs 10 --json`
    """
    from benchmarks.gateway import run

    with ended_by_signals(), err.status("with and without a gateway"):
        document = run(pairs, seconds, clients, items, shadow=shadow)
    _saved(document, save)
    emit(document, as_json=as_json)


@app.command("batch")
@errors_end_well
def batch(
    users: Users = 50_000,
    items: Items = 200_000,
    count: Annotated[int, typer.Option(min=1, help="Users to recommend for, of those of the world.")] = 5_000,
    processes: Annotated[int | None, typer.Option(min=1, help="Processes [default: one a core].")] = None,
    save: Save = None,
    as_json: Json = False,
) -> None:
    """Users a second of `batch run` over the reference world.

    Example: `streamrec bench batch --count 5000 --json`
    """
    from benchmarks.batch import run

    with err.status("slates for many users"):
        document = run(_size(users, items), _cache(), min(count, users), processes)
    _saved(document, save)
    emit(document, as_json=as_json)


@app.command("ctr")
@errors_end_well
def ctr(
    source: Annotated[Path, typer.Argument(metavar="SRC", help="MovieLens, as for `data import movielens`.")],
    seeds: Annotated[int, typer.Option(min=1, help="Of DCN-V2.")] = 3,
    save: Save = None,
    as_json: Json = False,
) -> None:
    """MovieLens ratings of 4 stars or more, split by time: the AUC of DCN-V2 beside that of logistic regression.

    Example: `streamrec bench ctr ml-100k.zip --seeds 3 --json`
    """
    from benchmarks.ctr import run

    with err.status("reading") as status:
        document = run(source, seeds, lambda text: status.update(text))
    _saved(document, save)
    emit(document, as_json=as_json, human=lambda: _told_apart(document))


def _told_apart(document: dict[str, Any]) -> None:
    rows = []
    for name, one in document["contestants"].items():
        gain, se = one["over_one_hot"], one["auc"]["se"]
        area = f"{one['auc']['mean']:.4f}" + ("" if se is None else f" ± {se:.4f}")
        rows.append((name, area, f"{gain['auc']:+.4f} ± {gain['se']:.4f}", f"{one['log_loss']['mean']:.4f}"))
    table(f"The last {document['tested']:,} ratings", ("", "AUC", "over one-hot", "log loss"), rows)


def _ranked(document: dict[str, Any]) -> None:
    rows = []
    for name, one in document["graphs"].items():
        agrees = document["agreement"].get(name, {})
        same = f"{agrees['overlap']:.2%}" if agrees else ""
        rows.append((name, f"{one['ms']['median']:.2f}", f"{one['times_the_plain']['median']:.2f}", same))
    table("500 rows, one thread", ("graph", "ms", "× the plain one", "same top 50"), rows)


def _retrieved(document: dict[str, Any]) -> None:
    rows = [
        (f"{one['items']:,}", name, f"{figure['ms']['median']:.3f}", f"{figure['recall_at_200']:.4f}")
        for one in document["nearest"]
        for name, figure in one["contestants"].items()
    ]
    table("The nearest 200, one thread", ("items", "search", "CPU ms", "recall"), rows)


def _numbers(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(word) for word in text.split(","))
    except ValueError as error:
        raise UsageError(f"whole numbers by commas, not {text!r}") from error


def _served(document: dict[str, Any]) -> None:
    columns = ("", "requests/s", "ours ÷ theirs", "p50 ms", "p99 ms", "CPU ms", "PSS MiB", "errors")

    def row(name: str, one: dict[str, Any]) -> tuple[Any, ...]:
        if "not_installed" in one:
            return (name, "not installed", one["not_installed"])
        interval = one.get("ratio_interval")
        times = f"{interval['median']:.2f} ({interval['low']:.2f}–{interval['high']:.2f})" if interval else ""
        figures = (one["p50_ms"], one["p99_ms"], one["cpu_ms_per_request"], one["pss_mib"], one["errors"])
        return (name, f"{one['throughput_rps']:.1f}", times, *figures)

    rows = [row("streamrec", document), *(row(name, one) for name, one in document["peers"].items())]
    table("One core; latency at half of each one's peak", columns, (r + ("",) * (8 - len(r)) for r in rows))
    if overload := document.get("overload"):
        out.print(f"3 × peak: {overload['share_ok']:.1%} answered; by rung {overload['rungs']}")


def _size(users: int, items: int) -> Any:
    from benchmarks.reference_home import Size

    whole = Size()
    return Size(
        users=users,
        items=items,
        categories=min(whole.categories, max(4, items // 100)),
        creators=min(whole.creators, max(10, items // 40)),
    )


def _cache() -> Path:
    return load_settings().home.resolve() / "bench"  # peers run in folders of their own


def _saved(document: dict[str, Any], target: Path | None) -> None:
    if target is not None:
        import json

        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(json.dumps(document, indent=1, default=str) + "\n")
