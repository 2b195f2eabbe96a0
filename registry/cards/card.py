"""A model card as a document of headings, sentences and tables, that is written as Markdown or as HTML.

Whatever stands in it may come from a data set: names of items, values of slices. Both writers take it as words.
"""

from collections.abc import Sequence
from dataclasses import dataclass

Cell = str | int | float | None


@dataclass(frozen=True, slots=True)
class Table:
    """A column named `verdict` holds verdicts."""

    head: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]


@dataclass(frozen=True, slots=True)
class Command:
    """To be copied as it is."""

    text: str


@dataclass(frozen=True, slots=True)
class Points:
    """Sentences beside one another."""

    items: tuple[str, ...]


Part = str | Table | Command | Points


@dataclass(frozen=True, slots=True)
class Section:
    title: str
    parts: Sequence[Part]


@dataclass(frozen=True, slots=True)
class Card:
    """lead: the first lines, before any heading."""

    title: str
    lead: Sequence[Part]
    sections: Sequence[Section]


def words(cell: Cell) -> str:
    """A value as it is told: whole numbers with separators, others with four digits that matter."""
    if cell is None or (isinstance(cell, float) and cell != cell):
        return ""
    if isinstance(cell, float):
        return f"{cell:.4g}"
    return f"{cell:,}" if isinstance(cell, int) else cell
