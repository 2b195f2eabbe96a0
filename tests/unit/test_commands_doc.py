"""The pages that are made from the code say what the code says today."""

from pathlib import Path

from cli.reference import COMMANDS, SETTINGS, commands, settings

ROOT = Path(__file__).parents[2]
AGAIN = "run `python -m cli.reference`"


def test_the_page_of_commands_lists_each_with_its_help_of_today() -> None:
    assert (ROOT / COMMANDS).read_text() == commands(), AGAIN


def test_the_page_of_serving_has_the_settings_of_today() -> None:
    assert settings() in (ROOT / SETTINGS).read_text(), AGAIN
