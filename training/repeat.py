"""A run again, from what it left: its snapshot, its recipe, and its figures to compare with."""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from contracts.errors import DataError, NotFound, Refused
from contracts.settings import Settings
from features.ranking import row_schema
from features.registry import REGISTRY
from registry.environment import code_state
from registry.models import Registry, RunFacts
from training import parallel, recipe
from training.data.snapshot import Snapshot
from training.pipeline import TrainConfig, TrainResult, train
from training.progress import Progress, silent
from training.recipe import Recipe

# Never the same twice: times, by the unit in their name, and MLflow's own figures of the machine.
MEASURED = re.compile(r"(_ms|_us|_s|seconds)$|^system/")


@dataclass(frozen=True, slots=True)
class Difference:
    """One figure, then and now; None where a run has none."""

    then: float | None
    now: float | None

    def plain(self) -> dict[str, float | None]:
        by = None if self.then is None or self.now is None else self.now - self.then
        return {"then": self.then, "now": self.now, "difference": by}


@dataclass(frozen=True, slots=True)
class Comparison:
    """compared: how many figures either run has. differences: those that are not the same to the last digit."""

    run_id: str
    compared: int
    differences: Mapping[str, Difference]

    @property
    def verdict(self) -> Literal["same", "differs"]:
        return "differs" if self.differences else "same"

    def plain(self) -> dict[str, Any]:
        return {
            "run_id": self.run_id,
            "verdict": self.verdict,
            "compared": self.compared,
            "differences": {name: difference.plain() for name, difference in self.differences.items()},
        }


@dataclass(frozen=True, slots=True)
class Repeated:
    result: TrainResult
    comparison: Comparison
    warnings: tuple[str, ...]


def repeat(run_id: str, settings: Settings, *, keep: Path | None = None, progress: Progress = silent) -> Repeated:
    """Train again as `run_id` did, whatever the settings say now, and compare every figure that both logged.

    Raises:
        NotFound: no such run; its snapshot is gone. DataError: the snapshot is not what it was.
        Refused: it did not end, left no recipe, was made by code with other features or another configuration, or by
            another number of processes.
    """
    registry = Registry.open(settings)
    facts = registry.run_facts(run_id)
    told = told_to(facts, registry)
    config = config_of(told, facts)
    as_many(told, facts)
    kept = snapshot_of(facts, settings.home)
    result = train(
        kept,
        until_us=told.until_us,
        seed=told.seed,
        settings=settings,
        config=config,
        rules=told.rules,
        quality=told.quality,
        framing=told.framing,
        keep=keep,
        progress=progress,
    )
    now = registry.run_facts(result.run_id)
    return Repeated(result, compare(run_id, facts.metrics, now.metrics), other_than_then(facts, now))


def told_to(facts: RunFacts, registry: Registry) -> Recipe:
    """
    Raises:
        Refused: the run did not end, or its recipe is missing or of another code.
    """
    if facts.status != "FINISHED":
        raise Refused(
            f"run {facts.run_id} is {facts.status}: it has no figures to compare with",
            next_command="streamrec models list",
        )
    folder = registry.run_folder(facts.run_id, recipe.FOLDER)
    if folder is None:
        raise Refused(
            f"run {facts.run_id} left no {recipe.NAME}: it is no training, or one of before recipes were kept "
            f"({made_by(facts)})",
            next_command="streamrec train --data DIR",
        )
    try:
        return Recipe.model_validate_json((folder / recipe.NAME).read_text())
    except ValidationError as error:
        raise _other_code(facts, f"its recipe is not one that this code reads: {_first(error)}") from error


def config_of(told: Recipe, facts: RunFacts) -> TrainConfig:
    """
    Raises:
        Refused: this code has other features, or its configuration other fields.
    """
    for what, then, now in (
        ("features", told.feature_hash, REGISTRY.hash),
        ("columns of a ranker's row", told.row_signature, row_schema().signature),
    ):
        if then != now:
            raise _other_code(facts, f"its {what} hash to {then[:12]}, those of this code to {now[:12]}")
    try:
        config = TrainConfig.model_validate(told.config)
    except ValidationError as error:
        raise _other_code(facts, f"its configuration is not one of this code: {_first(error)}") from error
    other = sorted(_unlike(told.config, config.model_dump(mode="json")))
    if other:
        raise _other_code(facts, f"its configuration is not one of this code: {', '.join(other)}")
    return config


def as_many(told: Recipe, facts: RunFacts) -> None:
    """
    Raises:
        Refused: other than so many processes are at it now; each draws batches of its own.
    """
    now = parallel.processes()
    if told.processes != now:
        start = "python" if told.processes == 1 else f"torchrun --nproc-per-node {told.processes}"
        raise Refused(
            f"run {facts.run_id} was fitted by {told.processes} processes at once, these are {now}: figures hang on it",
            next_command=f"{start} -m cli train --from-run {facts.run_id}",
        )


def snapshot_of(facts: RunFacts, home: Path) -> Snapshot:
    """The rows that the run's lineage names, read again to the last one.

    Raises:
        NotFound: the snapshot is gone. DataError: it is not what the lineage says.
    """
    digest = facts.data[0]["sha256"] if facts.data else ""
    try:
        kept = Snapshot.open(home, digest)
    except NotFound as error:
        raise NotFound(
            f"the snapshot {digest[:12]} of run {facts.run_id} is gone from {home}",
            next_command=f"streamrec train --data {facts.data[0]['imported_from']}" if facts.data else None,
        ) from error
    kept.verify()
    if kept.digest != digest:
        raise DataError(f"{kept.folder} says it is {kept.digest[:12]}: run {facts.run_id} was trained on {digest[:12]}")
    return kept


def compare(run_id: str, then: Mapping[str, float], now: Mapping[str, float]) -> Comparison:
    """Every figure that either has, to the last digit; but for what a clock or the machine gave."""
    names = sorted(name for name in then.keys() | now.keys() if not MEASURED.search(name))
    differences = {
        name: Difference(then.get(name), now.get(name)) for name in names if not _same(then.get(name), now.get(name))
    }
    return Comparison(run_id, len(names), differences)


def other_than_then(then: RunFacts, now: RunFacts) -> tuple[str, ...]:
    """What else may make a difference: another code, other packages, another machine."""
    said = []
    if then.tags.get("code_digest") != now.tags.get("code_digest"):
        said.append(f"the code is not that of run {then.run_id}, which was {made_by(then)}")
    if then.tags.get("environment_digest") != now.tags.get("environment_digest"):
        said.append(f"the installed packages are not those of run {then.run_id}: environment/installed.txt of both")
    if then.tags.get("streamrec.host") != now.tags.get("streamrec.host"):
        said.append(f"run {then.run_id} was made on another machine, which may round differently")
    return tuple(said)


def made_by(facts: RunFacts) -> str:
    """The code of a run in words."""
    commit = facts.tags.get("git_commit", "unknown")
    if facts.tags.get("git_dirty") == "false":
        return f"made by commit {commit}"
    return f"made by commit {commit} with changes: code/sources.tar.gz of the run has the sources"


def _other_code(facts: RunFacts, why: str) -> Refused:
    commit = facts.tags.get("git_commit", "unknown")
    return Refused(
        f"run {facts.run_id} cannot be repeated by this code: {why}; {made_by(facts)}, this is {code_state().commit}",
        next_command=f"git checkout {commit}",
    )


def _unlike(then: Any, now: Any, at: str = "") -> list[str]:
    """Dotted names of what two JSON documents do not share."""
    if isinstance(then, dict) and isinstance(now, dict):
        found = []
        for name in then.keys() | now.keys():
            where = f"{at}.{name}" if at else name
            if name not in then or name not in now:
                found.append(where)
            else:
                found += _unlike(then[name], now[name], where)
        return found
    return [] if json.dumps(then) == json.dumps(now) else [at]


def _same(then: float | None, now: float | None) -> bool:
    if then is None or now is None:
        return False
    return then == now or (math.isnan(then) and math.isnan(now))


def _first(error: ValidationError) -> str:
    first = error.errors()[0]
    return f"`{'.'.join(map(str, first['loc']))}`: {first['msg']}"
