"""The card of a version, as text now, and as files beside its bundle in MLflow."""

from collections.abc import Iterable

from contracts.settings import Settings
from registry.cards.card import Card
from registry.cards.facts import read
from registry.cards.html import html
from registry.cards.markdown import markdown
from registry.cards.words import card_of
from registry.models import Registry
from registry.versions import ModelVersion

MARKDOWN, HTML = "card.md", "card.html"


def card(version: ModelVersion, registry: Registry, settings: Settings) -> Card:
    return card_of(read(version, registry, settings))


def write_cards(versions: Iterable[ModelVersion], registry: Registry, settings: Settings) -> None:
    """`card.md` and `card.html` of each, in place of earlier ones."""
    for version in versions:
        made = card(registry.resolve(version.uri), registry, settings)  # with the aliases of now
        registry.write_files(version, {MARKDOWN: markdown(made), HTML: html(made)})
