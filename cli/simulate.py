"""`streamrec simulate`: a population whose preferences are known, on a virtual clock or against a gateway."""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.output import Json, emit, err, errors_end_well, out, table
from contracts.errors import NotFound, Unreachable, UsageError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from monitoring.simulation.population import Population

# As in monitoring/simulation: the command's help must not load what the simulation needs.
SCENARIOS = "better, equal, worse, failing, slow, empty, broken, biased, dying, failing-in-shadow"  # pragma: no mutate


def register(app: typer.Typer) -> None:
    app.command("simulate")(simulate)


@errors_end_well
def simulate(
    in_process: Annotated[
        bool, typer.Option("--in-process", help="Whole releases on a virtual clock; nothing is served.")
    ] = False,
    candidate: Annotated[
        str, typer.Option(metavar="WHAT", help=f"How the candidate behaves: {SCENARIOS}; in process also `all`.")
    ] = "equal",
    url: Annotated[str, typer.Option(help="The gateway.")] = "http://127.0.0.1:3000",
    rate: Annotated[float, typer.Option(min=0.1, max=5000, help="Requests a second.")] = 50.0,
    seconds: Annotated[float, typer.Option(min=0.1, help="For how long.")] = 60.0,
    requests: Annotated[int | None, typer.Option(min=1, help="At most so many requests.")] = None,
    users: Annotated[int | None, typer.Option(min=2, help="[default: 50,000 in process, else 2,000]")] = None,
    click_rate: Annotated[float, typer.Option(min=0, max=0.9, help="Of the first item, for an average user.")] = 0.3,
    key: Annotated[str | None, typer.Option(help="A consumer's key, where the gateway asks for one.")] = None,
    fault: Annotated[str | None, typer.Option(help="Tell the faulty Bento to be so; see --faulty.")] = None,
    faulty: Annotated[
        str | None, typer.Option(metavar="URL", help="Of a `python -m monitoring.simulation.faulty`.")
    ] = None,
    after: Annotated[float, typer.Option(min=0, help="Seconds until --fault.")] = 0.0,
    drift: Annotated[
        str | None, typer.Option(metavar="KEY=WORD:FACTOR", help="So many times the users of a context: country=DE:2.")
    ] = None,
    swap: Annotated[
        str | None, typer.Option(metavar="KEY=WORD", help="Users of a context have each other's tastes: device=web.")
    ] = None,
    world: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="The users of a `data synth` world, who click what they are known to like."),
    ] = None,
    runs: Annotated[int, typer.Option(min=1, help="In process: with seeds SEED, SEED + 1, …")] = 1,
    policy: Annotated[
        str | None, typer.Option(help="In process: NAME or NAME@VERSION of the catalogue [default: one made for it].")
    ] = None,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    home: Annotated[Path | None, typer.Option(help="STREAMREC_HOME, for policies")] = None,
    as_json: Json = False,
) -> None:
    """Users who call the service and click by known preferences; prints what they saw.

    Example: `streamrec simulate --in-process --candidate worse --runs 10`
    """
    if in_process:
        _in_process(candidate, range(seed, seed + runs), users, policy, home, as_json)
        return
    people = people_of(world, users, click_rate, drift, swap, seed)
    document = _over_http(url, candidate, people, rate, seconds, requests, key, fault, faulty, after, seed)
    document |= {"drift": drift, "swap": swap, "world": str(world) if world else None}
    emit(document, as_json=as_json)


def _in_process(
    candidate: str, seeds: range, users: int | None, policy: str | None, home: Path | None, as_json: bool
) -> None:
    from rich.progress import track

    from contracts.settings import load_settings
    from monitoring.simulation.behaviour import SCENARIOS as KNOWN
    from monitoring.simulation.in_process import USERS, simulate
    from monitoring.simulation.policies import SIMULATED
    from monitoring.simulation.summary import summarise
    from registry.releases.catalogue import read_policy

    names = list(KNOWN) if candidate == "all" else [candidate]
    _known(names, KNOWN, "candidate")
    rules = read_policy(policy, load_settings({"home": home}).home)[0] if policy else SIMULATED
    summaries = []
    for name in names:
        outcomes = [
            simulate(name, range(s, s + 1), users=users or USERS, policy=rules)[0]
            for s in track(seeds, name, console=err, transient=True)
        ]
        summaries.append((summarise(outcomes), outcomes))
    document: dict[str, Any] = {
        "policy": f"{rules.name}@{rules.version}",
        "users": users or USERS,
        "seeds": [seeds.start, seeds.stop - 1],
        "scenarios": {s.scenario: s.document() for s, _ in summaries},
        "outcomes": [vars_of(o) for _, outcomes in summaries for o in outcomes],
    }

    def human() -> None:
        rows = [
            (
                s.scenario,
                s.runs,
                ", ".join(f"{n} {end}" for end, n in s.ends.items()),
                f"{s.minutes[1] / 60:,.1f}",
                f"{s.users_met[1]:,.0f}",
                f"{s.users_met[2]:,.0f}",
                f"{s.users_harmed[1]:,.0f}",
                s.failed_requests,
            )
            for s, _ in summaries
        ]
        columns = ("candidate", "runs", "ends", "hours", "users met", "90 %", "harmed", "failed requests")
        table(f"{document['policy']}, {document['users']:,} users; medians", columns, rows)
        for _, outcomes in summaries:
            if len(outcomes) == 1:
                out.print(f"{outcomes[0].scenario}: {outcomes[0].reason}", markup=False)

    emit(document, as_json=as_json, human=human)


def _over_http(
    url: str,
    candidate: str,
    people: "Population",
    rate: float,
    seconds: float,
    requests: int | None,
    key: str | None,
    fault: str | None,
    faulty: str | None,
    after: float,
    seed: int,
) -> dict[str, Any]:
    import asyncio

    import aiohttp

    from monitoring.simulation.behaviour import SCENARIOS as KNOWN
    from monitoring.simulation.faulty import FAULTS, tell
    from monitoring.simulation.http import Crowd

    _known([candidate], KNOWN, "candidate")
    if (fault is None) != (faulty is None):
        raise UsageError("--fault NAME and --faulty URL go together")
    if fault is not None:
        _known([fault], FAULTS, "fault")
    crowd = Crowd(url, people, KNOWN[candidate], seed=seed, key=key)

    async def misbehave() -> None:
        if fault is not None and faulty is not None:
            await asyncio.sleep(after)
            try:
                await tell(faulty, FAULTS[fault])
            except aiohttp.ClientError as error:
                raise Unreachable(f"the faulty Bento at {faulty} does not answer: {error}") from error

    async def both() -> None:
        await asyncio.gather(crowd.run(rate=rate, seconds=seconds, requests=requests), misbehave())

    with suppress(KeyboardInterrupt):  # ends it early; what was seen till then is told
        asyncio.run(both())
    return {"url": url, "candidate": candidate, "fault": fault, **crowd.seen.document()}


def people_of(
    world: Path | None, users: int | None, click_rate: float, drift: str | None, swap: str | None, seed: int
) -> "Population":
    from monitoring.simulation.population import drifted, population, swapped

    if world is not None:
        if users is not None:
            raise UsageError("--world has its own users: leave --users out")
        people = _of_world(world)
    else:
        people = population(users or 2_000, seed, click_rate=click_rate)
    if drift is not None:
        context, _, factor = drift.partition(":")
        key, word = _context(people, context, f"--drift {drift} is not KEY=WORD:FACTOR")
        try:
            people = drifted(people, key, word, float(factor), seed)
        except ValueError as error:
            raise UsageError(f"--drift {drift}: {factor or 'nothing'} is no factor") from error
    if swap is not None:
        people = swapped(people, *_context(people, swap, f"--swap {swap} is not KEY=WORD"), seed)
    return people


def _context(people: "Population", text: str, wrong: str) -> tuple[str, str]:
    key, _, word = text.partition("=")
    if word not in people.words.get(key, ()):
        known = "; ".join(f"{name}: {', '.join(words)}" for name, words in people.words.items())
        raise UsageError(f"{wrong} with a context of the crowd ({known})")
    return key, word


def _of_world(folder: Path) -> "Population":
    """The users of a synthetic world, on their usual device, as active as they are and with its position bias."""
    import numpy as np

    from monitoring.simulation.population import Population
    from training.data.synth import SLATE
    from training.data.world import COUNTRIES, DEVICES, World

    world = World.load(folder / "truth")
    row = {item_id: at for at, item_id in enumerate(world.item_ids())}

    def likes(user: int, item_ids: Sequence[str]) -> "NDArray[np.float64]":
        known = np.array([row.get(item_id, -1) for item_id in item_ids])  # one that was put later has no likers
        return np.where(known < 0, 0.0, world.affinity(np.array(user), known)).astype(np.float64)

    return Population(
        world.user_ids(),
        {"country": world.user_country.astype(np.int64), "device": world.user_device.astype(np.int64)},
        {"country": list(COUNTRIES), "device": list(DEVICES)},
        world.activity.astype(np.float64) * 10 * world.users,  # visits a day: 10 on average
        np.zeros(world.users),
        World.examination(np.arange(1, SLATE + 1)).astype(np.float64),
        likes,
    )


def _known(names: list[str], known: Any, option: str) -> None:
    if unknown := [name for name in names if name not in known]:
        raise NotFound(
            f"no {option} {', '.join(unknown)}; there are {', '.join(known)}", next_command="streamrec simulate --help"
        )


def vars_of(outcome: Any) -> dict[str, Any]:
    from dataclasses import asdict

    return asdict(outcome)
