"""Every decision record has the parts that make it useful a year later."""

import re
from pathlib import Path

import pytest

ADRS = sorted((Path(__file__).resolve().parents[2] / "docs" / "adr").glob("[0-9]*.md"))
HEADINGS = ["Question", "Forces", "Options", "Decision", "Consequences", "Review"]
STATUS = re.compile(r"^Status: (proposed|accepted|deprecated|superseded by \d{4})$", re.MULTILINE)


def test_numbers_are_consecutive_and_listed() -> None:
    index = (ADRS[0].parent / "README.md").read_text()
    assert [int(p.name[:4]) for p in ADRS] == list(range(1, len(ADRS) + 1))
    assert [p.name for p in ADRS if p.name not in index] == []


@pytest.mark.parametrize("path", ADRS, ids=lambda p: p.stem)
def test_adr_has_its_parts(path: Path) -> None:
    text = path.read_text()
    assert text.startswith(f"# {path.name[:4]}: ")
    assert STATUS.search(text), "no status"
    assert re.findall(r"^## (.+)$", text, re.MULTILINE) == HEADINGS
    sections = dict(zip(HEADINGS, re.split(r"^## .+$", text, flags=re.MULTILINE)[1:], strict=True))
    assert sections["Options"].count("\n|") >= 4, "options are a table of at least two"
    assert re.search(r"By \d{4}-\d{2}-\d{2}", sections["Review"]), "no review date"
    assert re.search(r", or when .*\d", sections["Review"], re.DOTALL), "no numeric trigger"
