"""Messages reach the terminal letter by letter."""

import pytest
import typer

from cli.output import errors_end_well
from contracts.errors import DataError


@pytest.mark.parametrize("words", ["it must be timestamp[us, UTC]", "no folder at data[/bold]", "[red]"])
def test_square_brackets_of_a_message_are_printed(words: str, capsys: pytest.CaptureFixture[str]) -> None:
    @errors_end_well
    def command() -> None:
        raise DataError(words)

    with pytest.raises(typer.Exit):
        command()
    assert words in capsys.readouterr().err
