"""The rules document: what a slate must look like, apart from the models and with a version of its own."""

import hashlib
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from contracts.documents import read_toml

Relaxable = Literal["creator_floor", "fresh_floor", "category_cap"]


class RulesDocument(BaseModel):
    """One document. `window`: the rules on composition hold in the first `window` places of the slate.

    `flagged` and `seen` are policy: they are never relaxed, so they have no place in `relax`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: Literal[1] = 1
    version: str = Field(min_length=1, max_length=64)
    window: int = Field(10, ge=1, le=500)
    category_cap: int | None = Field(3, ge=1, description="at most this many of one category in the window")
    fresh_floor: int = Field(2, ge=0, description="at least this many young items in the window, where there are any")
    fresh_hours: float = Field(24.0, gt=0)
    creator_floor: int = Field(1, ge=0, description="at least this many items of under-exposed creators in the window")
    under_exposed_quantile: float = Field(0.5, ge=0, le=1, description="creators below this quantile of exposure")
    promoted_boost: float = Field(1.2, gt=0)
    suppress_flagged: Literal[True] = True
    suppress_seen: bool = True
    relax: tuple[Relaxable, ...] = ("creator_floor", "fresh_floor", "category_cap")

    @model_validator(mode="after")
    def _relax_names_each_once(self) -> "RulesDocument":
        if sorted(self.relax) != ["category_cap", "creator_floor", "fresh_floor"]:
            raise ValueError("`relax` orders creator_floor, fresh_floor and category_cap, each once")
        return self

    @property
    def digest(self) -> str:
        """`version@` and 12 characters of the SHA-256 of the content."""
        text = self.model_dump_json()
        return f"{self.version}@{hashlib.sha256(text.encode()).hexdigest()[:12]}"

    @classmethod
    def read(cls, path: Path) -> "RulesDocument":
        """
        Raises:
            DataError: missing, not TOML, an unknown key, or a value out of range.
        """
        return read_toml(cls, path, "rules document")
