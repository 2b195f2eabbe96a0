"""The data-set contract as types: file names, column names, `dataset.toml`."""

import tomllib
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from contracts.errors import DataError

INTERACTIONS = "interactions.parquet"
ITEMS = "items.parquet"
USERS = "users.parquet"
REJECTS = "rejects.parquet"
CONFIG = "dataset.toml"

# Columns with a meaning of their own; every other column is an attribute or a context column.
INTERACTION_COLUMNS = ("user_id", "item_id", "timestamp", "event", "value")
ITEM_COLUMNS = (
    "item_id",
    "category",
    "published_at",
    "creator_id",
    "is_promoted",
    "is_flagged",
    "title",
    "price",
)


class Positive(BaseModel):
    """An event that counts as a wish for the item. `min_value`: only with at least this value (ratings).

    `attribution_h`: how long after an answer it still counts for the item shown there.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    event: str
    min_value: float | None = None
    weight: float = Field(1.0, gt=0)
    attribution_h: float = Field(24.0, gt=0)


class Attribute(BaseModel):
    """A column that models may read."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    column: str
    table: Literal["users", "items", "interactions"]
    kind: Literal["categorical", "numeric", "text"]


class DatasetConfig(BaseModel):
    """`dataset.toml`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    licence: str = "unknown"
    clock: Literal["wall", "log_end"] = "wall"
    positives: tuple[Positive, ...] = Field(min_length=1)
    impression_event: str | None = None
    completion_event: str | None = Field(None, description="event whose `value` in [0, 1] is the share completed")
    features: tuple[Attribute, ...] = ()
    slices: tuple[str, ...] = ()
    max_reject_share: float = Field(0.01, ge=0, le=1)
    session_gap_min: float = Field(30.0, gt=0)

    @classmethod
    def read(cls, folder: Path) -> "DatasetConfig":
        """
        Raises:
            DataError: the file is missing, not TOML, or has an unknown key or a wrong type.
        """
        path = folder / CONFIG
        try:
            return cls.model_validate(tomllib.loads(path.read_text()))
        except FileNotFoundError as error:
            raise DataError(f"{folder} has no {CONFIG}: is it a data set?") from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise DataError(f"{path} is not valid TOML: {error}") from error
        except ValidationError as error:
            problems = "; ".join(f"`{'.'.join(map(str, e['loc']))}`: {e['msg']}" for e in error.errors())
            raise DataError(f"{path}: {problems}") from error
