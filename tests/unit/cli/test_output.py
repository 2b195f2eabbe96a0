"""Messages reach the terminal letter by letter."""

from pathlib import Path

import pytest
import typer

from cli.output import errors_end_well, table
from contracts.errors import DataError, Unreachable


@pytest.mark.parametrize("words", ["it must be timestamp[us, UTC]", "no folder at data[/bold]", "[red]"])
def test_square_brackets_of_a_message_are_printed(words: str, capsys: pytest.CaptureFixture[str]) -> None:
    @errors_end_well
    def command() -> None:
        raise DataError(words)

    with pytest.raises(typer.Exit):
        command()
    assert words in capsys.readouterr().err


def test_an_address_in_the_next_command_is_printed_letter_by_letter(capsys: pytest.CaptureFixture[str]) -> None:
    @errors_end_well
    def command() -> None:
        raise Unreachable("models:apple:1 is away", next_command="redis-cli -u redis://[::1]:6379/0 ping :apple:")

    with pytest.raises(typer.Exit):
        command()
    said = capsys.readouterr().err
    assert "next: redis-cli -u redis://[::1]:6379/0 ping :apple:" in said
    assert "models:apple:1" in said


def test_what_the_system_refuses_ends_with_exit_1(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    @errors_end_well
    def command() -> None:
        (tmp_path / "absent" / "file").write_text("x")

    with pytest.raises(typer.Exit) as ended:
        command()
    assert ended.value.exit_code == 1
    assert "No such file or directory" in capsys.readouterr().err


def test_what_stands_in_a_table_is_printed_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    table("found", ["check", "detail"], [("escalation", "name a person under [escalation] contact"), (None, 3)])
    assert "under [escalation] contact" in capsys.readouterr().out
