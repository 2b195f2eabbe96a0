"""Everything that a training was told, as one document in its run: with the snapshot, enough to repeat it."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from contracts.framing import Framing
from contracts.quality import QualityPolicy
from contracts.rules import RulesDocument
from features.ranking import row_schema
from features.registry import REGISTRY
from training import parallel

FOLDER = "recipe"
NAME = "recipe.json"


class Recipe(BaseModel):
    """until_us: as it was asked for. config: a TrainConfig as JSON. processes: that shared the fits, whose number the
    figures hang on. feature_hash, row_signature: of the code then."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: Literal[1] = 1
    seed: int
    until_us: int | None
    config: dict[str, Any]
    rules: RulesDocument
    quality: QualityPolicy
    framing: Framing
    processes: int
    feature_hash: str
    row_signature: str


def recipe(
    config: BaseModel,
    seed: int,
    until_us: int | None,
    rules: RulesDocument,
    quality: QualityPolicy,
    framing: Framing,
) -> Recipe:
    """Of this code."""
    return Recipe(
        seed=seed,
        until_us=until_us,
        config=config.model_dump(mode="json"),
        rules=rules,
        quality=quality,
        framing=framing,
        processes=parallel.processes(),
        feature_hash=REGISTRY.hash,
        row_signature=row_schema().signature,
    )


def log_recipe(run: Any, of: Recipe) -> None:
    run.log_json(f"{FOLDER}/{NAME}", of.model_dump(mode="json"))
