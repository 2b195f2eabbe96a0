"""The rules document that comes with the code."""

from pathlib import Path

from contracts.rules import RulesDocument

DEFAULT = Path(__file__).with_name("rules.toml")


def default_rules() -> RulesDocument:
    return RulesDocument.read(DEFAULT)
