"""`streamrec simulate`, in process."""

import json

from typer.testing import CliRunner

from cli.main import app


def test_a_run_is_one_json_document() -> None:
    told = CliRunner().invoke(
        app, ["simulate", "--in-process", "--candidate", "failing-in-shadow", "--runs", "2", "--seed", "7", "--json"]
    )
    assert told.exit_code == 0, told.output
    document = json.loads(told.stdout)
    assert document["scenarios"]["failing-in-shadow"]["ends"] == {"rolled_back": 2}
    assert [o["seed"] for o in document["outcomes"]] == [7, 8]


def test_what_is_unknown_or_half_given_is_refused() -> None:
    for words, code in (
        (["--in-process", "--candidate", "nobody"], 4),
        (["--candidate", "nobody"], 4),
        (["--fault", "dying"], 2),
        (["--fault", "nothing", "--faulty", "unix:/nowhere"], 4),
        (["--in-process", "--policy", "no-such-policy"], 4),
        (["--url", "http://127.0.0.1:9", "--requests", "1"], 5),
    ):
        assert CliRunner().invoke(app, ["simulate", *words]).exit_code == code, words
