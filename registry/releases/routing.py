"""The control state as the routing table that gateways read, and the signed files that carry it.

`compile_table` is pure. Files are replaced by rename after they are on the disk, so that a reader sees the old one or
the new one, and a power cut neither loses nor tears them.
"""

import os
from collections.abc import Mapping
from pathlib import Path

from pydantic import ValidationError

from contracts.errors import ArtifactError, Refused
from contracts.routing import (
    OVERRIDE,
    ROUTING,
    BreakGlass,
    ExperimentRoute,
    Flag,
    Overrides,
    ReleaseRoute,
    RoutingTable,
    Upstream,
)
from contracts.signing import Signer
from registry.releases.values import ControlState, Release


def compile_table(
    state: ControlState,
    ready: Mapping[str, Upstream],
    *,
    epoch: int,
    version: int,
    written_at: str,
    gateway_processes: int = 1,
) -> RoutingTable:
    """What the state says, as far as the Bentos that are ready can carry it: a candidate that is not ready keeps its
    route with nothing on it, and a champion that is not ready stays the champion, without an address. `table_problems`
    names both, and experiments and flags that cannot be carried. So a table follows from every state, and no rollback
    is held up by something else in it.
    """
    experiments, flags, _ = _side_by_side(state)
    return RoutingTable(
        epoch=epoch,
        version=version,
        written_at=written_at,
        champion=state.champion,
        previous=state.previous,
        bentos={tag: ready[tag] for tag in state.live if tag in ready},
        release=_route(state.release, ready),
        experiments=experiments,
        holdouts=state.holdouts,
        flags=flags,
        rules=state.rules,
        consumers=state.consumers,
        gateway_processes=gateway_processes,
        adopted=state.adopted,
    )


def table_problems(state: ControlState, ready: Mapping[str, Upstream]) -> tuple[str, ...]:
    """What `compile_table` could not carry."""
    problems = []
    if state.champion is not None and state.champion.bento not in ready:
        problems.append(f"the champion {state.champion.bento} is not ready: gateways answer by their last resort")
    route = _route(state.release, ready)
    if route is not None and route.candidate.bento not in ready:
        problems.append(f"the candidate {route.candidate.bento} is not ready: it gets no request")
    return (*problems, *_side_by_side(state)[2])


def _route(release: Release | None, ready: Mapping[str, Upstream]) -> ReleaseRoute | None:
    """None before the first step and after the end. A paused release keeps what its step gives it."""
    step = release.current if release else None
    if release is None or step is None or not release.active or release.champion is None:
        return None
    here = release.candidate.bento in ready
    shadow = step.kind == "shadow"
    return ReleaseRoute(
        id=release.id,
        step=step.name,
        candidate=release.candidate,
        unit=release.policy.unit,
        weight=step.weight if here and not shadow else 0,
        split=step.split,
        shadow=step.weight if here and shadow else 0,
        condition=release.policy.condition,
    )


def _side_by_side(
    state: ControlState,
) -> tuple[tuple[ExperimentRoute, ...], tuple[Flag, ...], tuple[str, ...]]:
    """Experiments and flags that can stand in one table, and why others cannot. The first of a name stays."""
    problems = []
    taken = {state.release.id} if state.release and state.release.active else set()
    units: dict[str, str] = {}
    experiments, flags = [], []
    for experiment in state.experiments:
        unit = units.get(experiment.layer, experiment.unit)
        why = _misfit(experiment.id, experiment.treatment, taken, state)
        if why is None and unit != experiment.unit:  # slots part units of one kind only
            why = f"is by {experiment.unit}, in a layer by {unit}"
        if why is None:
            experiments.append(experiment)
            units[experiment.layer] = unit
            taken.add(experiment.id)
        else:
            problems.append(f"experiment {experiment.id} {why}: it is left out")
    for flag in state.flags:
        why = _misfit(flag.id, flag.on, taken, state)
        if why is None:
            flags.append(flag)
            taken.add(flag.id)
        else:
            problems.append(f"flag {flag.id} {why}: it is left out")
    return tuple(experiments), tuple(flags), tuple(problems)


def _misfit(id_: str, overrides: Overrides, taken: set[str], state: ControlState) -> str | None:
    if id_ in taken:
        return "has the name of another"
    if overrides.rules is not None and overrides.rules not in state.rules:
        return f"names rules {overrides.rules}, which are not there"
    return None


class RoutingWriter:
    """The table's files under `home/control`."""

    def __init__(self, home: Path, signer: Signer) -> None:
        self._folder = home.resolve() / "control"
        self._signer = signer
        self._verifier = signer.verifier

    def last(self) -> RoutingTable | None:
        """What lies in the file; None when there is none, or none of ours that can be read: then a new one is due."""
        try:
            text = (self._folder / ROUTING).read_bytes()
            return RoutingTable.model_validate_json(self._verifier.open(text))
        except (OSError, Refused, ValidationError):
            return None

    def write(self, table: RoutingTable) -> None:
        """
        Raises:
            OSError: the disk does not take it; the old table is untouched.
        """
        _replace(self._folder / ROUTING, self._signer.seal(table.model_dump_json()))

    def override(self) -> BreakGlass | None:
        """The order that lies there.

        Raises:
            Refused: it is not signed by our key, or not an order.
        """
        try:
            text = (self._folder / OVERRIDE).read_bytes()
        except FileNotFoundError:
            return None
        try:
            return BreakGlass.model_validate_json(self._verifier.open(text))
        except ValidationError as error:
            raise Refused(f"{self._folder / OVERRIDE} is signed and not an order", next_command=None) from error

    def write_override(self, order: BreakGlass) -> None:
        """
        Raises:
            OSError: the disk does not take it.
        """
        _replace(self._folder / OVERRIDE, self._signer.seal(order.model_dump_json()))

    def clear_override(self) -> None:
        """Only once all gateways have a table that has adopted it: until then it is what keeps them back."""
        (self._folder / OVERRIDE).unlink(missing_ok=True)
        _sync_folder(self._folder)


def write_order(home: Path, signer: Signer, order: BreakGlass) -> None:
    """
    Raises:
        ArtifactError: the disk does not take it.
    """
    try:
        RoutingWriter(home, signer).write_override(order)
    except OSError as error:
        raise ArtifactError(f"the order cannot be written: {error}") from error


class MemoryWriter:
    """A `RoutingWriter` without files, for tests and simulations. tables: all that were written."""

    def __init__(self) -> None:
        self.tables: list[RoutingTable] = []
        self.order: BreakGlass | None = None

    def last(self) -> RoutingTable | None:
        return self.tables[-1] if self.tables else None

    def write(self, table: RoutingTable) -> None:
        self.tables.append(table)

    def override(self) -> BreakGlass | None:
        return self.order

    def write_override(self, order: BreakGlass) -> None:
        self.order = order

    def clear_override(self) -> None:
        self.order = None


def _replace(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    part = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with part.open("w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError:
        part.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    """So that the rename itself is on the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
