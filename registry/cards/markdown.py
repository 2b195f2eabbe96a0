"""A card as GitHub's Markdown."""

import re

from registry.cards.card import Card, Cell, Command, Part, Points, Table, words

# What begins markup within a line; of `://` and `www.`, which readers turn into links, one sign is enough.
_MARKUP = re.compile(
    r"[\\`*\[\]<>|&~$]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])|(?<=:)/(?=/)|(?<=\bwww)\.|(?<=\w)@(?=[\w-]+\.)", re.IGNORECASE
)
# What begins a heading, a list or a heading's underline, where a line begins.
_LINE = re.compile(r"^(\d+)([.)])(?=\s|$)|^()([-+=#])")


def markdown(card: Card) -> str:
    blocks = [f"# {plain(card.title)}", *(_part(part) for part in card.lead)]
    for section in card.sections:
        blocks += [f"## {plain(section.title)}", *(_part(part) for part in section.parts)]
    return "\n\n".join(blocks) + "\n"


def plain(text: str) -> str:
    """`text` so that it is read as what it is: one line of words."""
    line = " ".join(text.split())
    line = _MARKUP.sub(lambda found: "\\" + found[0], line)
    return _LINE.sub(r"\1\3\\\2\4", line)


def _part(part: Part) -> str:
    if isinstance(part, Table):
        lines = [_row(part.head), "|" + "---|" * len(part.head), *(_row(row) for row in part.rows)]
        return "\n".join(lines)
    if isinstance(part, Command):
        return "    " + " ".join(part.text.split())
    if isinstance(part, Points):
        return "\n".join(f"- {plain(item)}" for item in part.items)
    return plain(part)


def _row(cells: tuple[Cell, ...]) -> str:
    return "| " + " | ".join(plain(words(cell)) for cell in cells) + " |"
