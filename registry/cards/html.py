"""A card as one page of HTML, on the skeleton that all our pages share."""

from markupsafe import Markup

from registry import page
from registry.cards.card import Card, Command, Part, Points, Table, words


def html(card: Card) -> str:
    parts = [page.heading(card.title, 1), *(_part(part) for part in card.lead)]
    for number, section in enumerate(card.sections):
        parts += [page.heading(section.title, anchor=f"s{number}"), *(_part(part) for part in section.parts)]
    links = {f"s{number}": section.title for number, section in enumerate(card.sections)}
    return page.page(card.title, parts[0], page.contents(links), *parts[1:])


def _part(part: Part) -> Markup:
    if isinstance(part, Table):
        verdicts = {at for at, name in enumerate(part.head) if name == "verdict"}
        return page.table(
            part.head,
            (
                tuple(page.verdict(words(cell)) if at in verdicts else cell for at, cell in enumerate(row))
                for row in part.rows
            ),
        )
    if isinstance(part, Command):
        return page.code(part.text)
    if isinstance(part, Points):
        return page.element("ul", *(page.element("li", item) for item in part.items))
    return page.paragraph(part)
