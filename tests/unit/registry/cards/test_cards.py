"""A card says what is known, in both forms, and takes whatever a data set holds as words."""

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import pytest
from markdown_it import MarkdownIt

from contracts.checklist import wanted
from contracts.evidence import Check
from registry.artifacts import KINDS, Kind
from registry.cards.card import Card, Section, Table, words
from registry.cards.facts import Facts
from registry.cards.html import html
from registry.cards.markdown import markdown, plain
from registry.cards.words import card_of
from registry.evidence import document
from registry.models import RunFacts
from registry.versions import ModelVersion
from tests.made_evidence import made_checks

HOSTILE = (
    '"><script>alert(1)</script>[a](javascript:alert(1))![i](http://e/x.png)<b>`c`|\n# h\n- l <http://e> &lt; www.e.org'
)
DAY_US = 86_400_000_000


def facts(kind: Kind = "ranking", word: str = "DE") -> Facts:
    figures = {"ndcg@10": 0.1436, "ndcg@10_se": 0.0049, "recall@500": 0.6, "recall@500_se": 0.01, "ranker_ece": 0.0017}
    figures |= {"recall@500:graph": 0.45, "recall@500:graph_se": 0.01, "test_users": 1283.0, "test_targets": 24418.0}
    tags = {
        "data_name": word,
        "data_source": word,
        "data_digest": "ab" * 32,
        "trained_until_us": str(15_000 * DAY_US),
        "evaluation": json.dumps(figures),
        "baselines": json.dumps({word: {"ndcg@10": 0.0377, "ndcg@10_se": 0.002}}),
        "framing": json.dumps({"target": {word: 1.0}, "horizon": "7 days", "budget_ms": 50.0, "features": [word]}),
        "git_commit": "c" * 40,
        "git_dirty": "true",
        "seeds": '{"global": 7}',
    }
    versions = {k: ModelVersion(k, 7, "run-1", "/x", "m", 15_001 * DAY_US, tags, ("challenger",)) for k in KINDS}
    low = Check(name="calibration", verdict="inconclusive", detail=f"too few of {word}", command=word)
    checks = [*(c for c in made_checks(kind) if c.name not in ("calibration", "latency")), low]
    slices = [slice_of(f"country={word}", 0.07, "fail"), slice_of("country=FR", 0.2, "pass")]
    impact = {"what": word, "ratio": 0.7, "low": 0.6, "high": 0.8, "least": word, "greatest": "x", "rates": {}, "n": {}}
    rung = {"model": word, "family": "linear", "ndcg@10": 0.1, "ndcg@10_se": 0.01, "gain": 0.0, "gain_se": None}
    run = RunFacts("run-1", word, "FINISHED", 0, {"cut_us": str(14_000 * DAY_US)}, {}, {}, ())
    return Facts(
        versions[kind],
        versions,
        document(f"streamrec-{kind}", "run-1", checks),
        run,
        [{**rung, "train_s": 1.5, "serve_us": 90.0, "verdict": "worth it", "why": word}],
        slices,
        {"fairness": [impact]},
        {},
        [f"{word} is missing in half of the rows"],
        13_000 * DAY_US,
    )


def slice_of(name: str, value: float, verdict: str) -> dict[str, Any]:
    figures = {"value": value, "low": value - 0.01, "high": value + 0.01, "whole": 0.14, "limit": 0.07}
    return {"slice": name, "metric": "ndcg@10", "n": 40, **figures, "verdict": verdict, "why": ""}


class Tags(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.values: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append(tag)
        self.values += [f"{name}={value}" for name, value in attrs]


@pytest.mark.parametrize("kind", KINDS)
def test_a_card_has_every_part_and_each_check_with_its_verdict(kind: Kind) -> None:
    made = card_of(facts(kind))
    titles = ["Intended use", "Framing", "Data", "Figures", "Slices and fairness", "Limits", "Checks", "Lineage"]
    assert [s.title for s in made.sections if s.title != "Calibration"] == [*titles, "When it goes wrong"]
    assert ("Calibration" in [s.title for s in made.sections]) == (kind == "ranking")
    text = markdown(made)
    assert "0.1436 ± 0.0049" in text
    assert "7 days" in text
    assert "from 2008-05-01 00:00 UTC on" in text  # the cut: 14,000 days after 1970
    for name in wanted(f"streamrec-{kind}"):
        assert re.search(rf"^\| \w+ \| {name} \| (pass|inconclusive|missing) \|", text, re.MULTILINE), name
    assert "| latency | latency | missing |" in text
    assert "streamrec release rollback" in text


def test_what_is_worst_comes_first() -> None:
    groups = next(s for s in card_of(facts()).sections if s.title == "Slices and fairness")
    table = next(part for part in groups.parts if isinstance(part, Table))
    assert [row[-1] for row in table.rows] == ["fail", "pass"]
    assert [row[5] for row in table.rows] == ["50%", "143%"]


@pytest.mark.parametrize("kind", KINDS)
def test_whatever_a_data_set_holds_stays_words_in_html(kind: Kind) -> None:
    quiet, loud = Tags(html(card_of(facts(kind)))), Tags(html(card_of(facts(kind, HOSTILE))))
    assert loud.found == quiet.found
    assert loud.values == quiet.values


@pytest.mark.parametrize("kind", KINDS)
def test_and_in_markdown(kind: Kind) -> None:
    def shape(text: str) -> list[str]:
        tokens = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"]).parse(text)
        return [
            t.type
            for token in tokens
            for t in (token, *(token.children or ()))
            if t.type not in ("text", "text_special")
        ]

    quiet, loud = shape(markdown(card_of(facts(kind)))), shape(markdown(card_of(facts(kind, HOSTILE))))
    assert loud == quiet
    assert not {"html_inline", "html_block", "link_open", "image", "code_inline"} & set(loud)


@pytest.mark.parametrize(
    "text", ["- a", "+ a", "# a", "1. a", "2) a", "=== ", "--- ", "> a", "| a", "~~~", "***", "_a_"]
)
def test_no_line_begins_or_holds_markup(text: str) -> None:
    tokens = MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(plain(text))
    assert [t.type for t in tokens] == ["paragraph_open", "inline", "paragraph_close"]
    assert tokens[1].children is not None
    assert "".join(t.content for t in tokens[1].children) == text.strip()


def test_a_version_of_which_little_is_known_has_a_card_that_says_so() -> None:
    version = replace(facts().version, tags={}, aliases=())
    bare = card_of(Facts(version, {}, None, None, (), (), {}, {}, (), None))
    text = markdown(bare)
    for said in ("no evidence", "Not declared", "Not evaluated", "It carries no evidence", "nobody is named"):
        assert said in text
    assert html(bare)


def test_figures_are_told_with_four_digits_that_matter() -> None:
    assert [words(cell) for cell in (None, float("nan"), 0.123456, 1234567, "x")] == [
        "",
        "",
        "0.1235",
        "1,234,567",
        "x",
    ]
    assert markdown(Card("a|b", [], [Section("s", [Table(("h",), ((0.5,),))])])).startswith("# a\\|b\n")
