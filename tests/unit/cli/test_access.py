"""`streamrec access`: exit codes, what is printed, and that a secret is printed once."""

import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from cli.main import app


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("STREAMREC_OPERATOR_TOKEN", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def access(home: Path, *words: str, code: int = 0) -> Any:
    done = CliRunner().invoke(app, ["access", *words, "--home", str(home), "--json"])
    assert done.exit_code == code, done.output
    return json.loads(done.stdout) if code == 0 else done.output


def test_a_team_s_tokens_from_first_to_last(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert access(home, "create", "root", "--role", "admin", "--dry-run")["dry_run"] is True
    assert access(home, "list")["access"] == []
    assert "the first token is an admin's" in access(home, "create", "eve", "--role", "viewer", code=3)
    root = access(home, "create", "root", "--role", "admin")["token"]
    assert root.startswith("srt_")
    assert len(root) == len("srt_") + 43  # 32 bytes in base64 without padding
    assert "a token is needed" in access(home, "list", code=3)
    monkeypatch.setenv("STREAMREC_OPERATOR_TOKEN", root)
    eve = access(home, "create", "eve", "--role", "viewer")["token"]
    key = access(home, "create", "shop", "--role", "consumer", "--rate", "5", "--burst", "9")["key"]
    listed = access(home, "list")
    assert [(row["name"], row["role"]) for row in listed["access"]] == [
        ("root", "admin"),
        ("eve", "viewer"),
        ("shop", "consumer"),
    ]
    assert "eve is a viewer" in access(home, "create", "x", "--role", "admin", "--token", eve, code=3)
    assert "exit" not in access(home, "revoke", "nobody", code=4)
    assert "last admin" in access(home, "revoke", "root", code=3)
    access(home, "revoke", "shop")
    access(home, "revoke", "eve")
    access(home, "revoke", "root")
    monkeypatch.delenv("STREAMREC_OPERATOR_TOKEN")
    assert access(home, "list")["access"] == []  # the local user again

    kept = (home / "control" / "control.db").read_bytes()
    for secret in (root, eve, key):
        assert secret.encode() not in kept
    with sqlite3.connect(home / "control" / "control.db") as connection:
        actions = [row[0] for row in connection.execute("SELECT action FROM audit ORDER BY number")]
    assert actions == [
        *("token.create", "refused", "token.create", "consumer.create", "refused"),
        *("consumer.revoke", "token.revoke", "token.revoke"),
    ]


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("create", "x", "--role", "boss"), 2),
        (("create", "", "--role", "admin"), 2),
        (("create", "x" * 65, "--role", "admin"), 2),
        (("create", "odd name", "--role", "consumer"), 2),
        (("create", "x", "--role", "admin", "--rate", "5"), 2),
        (("create", "x", "--role", "consumer", "--rate", "0"), 2),
    ],
)
def test_odd_words_are_refused_as_usage(home: Path, words: tuple[str, ...], code: int) -> None:
    access(home, *words, code=code)
    assert access(home, "list")["access"] == []


def test_a_database_that_is_none_is_told_with_the_next_command(home: Path) -> None:
    (home / "control").mkdir()
    (home / "control" / "control.db").write_bytes(b"not a database" * 500)
    said = access(home, "list", code=5)
    assert "control.db does not answer" in said
    assert "--break-glass" in said
