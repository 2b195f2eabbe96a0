import pytest
from typer.testing import CliRunner

from cli.main import app


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "--data DIR, or --from-run RUN"),
        (["--from-run", "r1", "--data", "shop"], "leave out --data"),
        (["--from-run", "r1", "--seed", "0"], "leave out --seed"),
        (["--from-run", "r1", "--ranker", "best"], "leave out --ranker"),
        (["--from-run", "r1", "--until", "2024-12-01", "--seed", "1"], "leave out --until, --seed"),
    ],
)
def test_a_training_is_told_what_to_do_or_which_run_to_repeat_and_not_both(words: list[str], said: str) -> None:
    result = CliRunner().invoke(app, ["train", *words])
    assert result.exit_code == 2
    assert said in result.stderr
