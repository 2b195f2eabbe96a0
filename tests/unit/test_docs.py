"""What the pages point at is there: files, headings, pictures, and every command with its options."""

import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import typer.main

from cli.main import app

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
APP = typer.main.get_command(app)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"(?<!`)(`+)(?!`)(.+?)(?<!`)\1(?!`)")
QUOTED = re.compile(r"(?:^|[\s$(])streamrec ([a-z][^\n|&;#()]*)", re.MULTILINE)
MAX_PICTURE_BYTES = 150_000


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def anchors(page: Path) -> set[str]:
    """Headings as they stand in a link."""
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", h.lower()).strip().replace(" ", "-") for h in headings}


def commands(text: str) -> Iterator[str]:
    """What follows `streamrec` in code: in blocks and in lines."""
    blocks = FENCE.findall(text)
    lines = [code for _, code in INLINE.findall(FENCE.sub("", text))]
    for code in (*blocks, *lines):
        yield from (found.rstrip() for found in QUOTED.findall(code))


def problem(words: str) -> str | None:
    """Why `streamrec WORDS` would not run as written; None when the command and all its options exist."""
    command: click.Command = APP
    for word in words.split():
        known = getattr(command, "commands", {})
        if word.startswith("--"):
            option = re.split(r"[=\]/,]", word)[0].rstrip(".:")
            if option != "--help" and option not in {o for p in command.params for o in p.opts}:
                return f"`{command.name}` has no {option}"
        elif known:
            if not re.fullmatch(r"[a-z][a-z-]*", word):
                break  # `COMMAND`, `…`
            if word not in known:
                return f"there is no command `{words}`"
            command = known[word]
    return None


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_resolve(page: Path) -> None:
    broken = []
    for target in LINK.findall(FENCE.sub("", page.read_text())):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        found = (page.parent / path).resolve() if path else page
        if not found.exists() or (anchor and anchor not in anchors(found)):
            broken.append(target)
    assert broken == []


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_quoted_commands_exist(page: Path) -> None:
    assert [p for words in commands(page.read_text()) if (p := problem(words))] == []


def test_commands_that_are_not_there_are_noticed() -> None:
    text = "`streamrec data synht x`, ``streamrec train --dtaa x`` and\n```console\n$ streamrec serve --prot 1\n```\n"
    assert len([words for words in commands(text) if problem(words)]) == 3
    assert problem("data synth shop --users 5") is None
    assert problem("COMMAND --help") is None


def test_pictures_are_small_and_used() -> None:
    text = "".join(page.read_text() for page in PAGES)
    pictures = [p for p in (ROOT / "docs" / "pictures").iterdir() if p.is_file()]
    assert [p.name for p in pictures if p.stat().st_size > MAX_PICTURE_BYTES] == []
    assert [p.name for p in pictures if f"pictures/{p.name}" not in text] == []
