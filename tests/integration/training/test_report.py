"""The page of a training: complete, small, and nothing of the data becomes markup in it."""

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from contracts.checklist import wanted
from contracts.evidence import Check
from contracts.quality import QualityPolicy
from contracts.serving import SOURCES
from contracts.settings import Settings
from registry.environment import CodeState
from registry.models import Registry
from training.calibration import Choice
from training.evaluation.fairness import Impact
from training.pipeline import TrainResult
from training.report.facts import Facts
from training.report.page import OF_EVALUATION, report

HOSTILE = "$\\frac{</td><script>alert(1)</script>\"' onload=x {0} <img src=https://example.org/x>"


class Found(HTMLParser):
    """Tags, anchors and links of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.sources: list[str] = []
        self.links: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given: Mapping[str, str | None] = dict(attrs)
        assert not [name for name in given if name.startswith("on")]
        self.tags.append(tag)
        self.ids += [given["id"] or ""] if "id" in given else []
        self.sources += [given["src"] or ""] if "src" in given else []
        self.links += [given["href"] or ""] if "href" in given else []


def outside(text: str) -> list[str]:
    """What a browser would fetch. The pictures are in the page, so their own namespaces are not seen here."""
    return re.findall(r"https?://", re.sub(r"data:image/[^\"]*", "", text))


@pytest.fixture(scope="module")
def page(whole: tuple[TrainResult, Settings]) -> str:
    path = whole[0].report_path
    assert path is not None
    return path.read_text()


def test_a_training_leaves_a_small_page_under_its_run(whole: tuple[TrainResult, Settings]):
    result, settings = whole
    assert result.report == f"runs:/{result.run_id}/report/training.html"
    folder = Registry.open(settings).run_folder(result.run_id, "report")
    assert folder is not None
    assert result.report_path == folder / "training.html"
    assert result.report_path.stat().st_size < 1_000_000


def test_the_page_has_every_section_and_opens_without_a_network(page: str, whole: tuple[TrainResult, Settings]):
    found = Found(page)
    sections = {"checks", *OF_EVALUATION, "importance", "lineage"}
    assert sections <= set(found.ids)
    assert {link.removeprefix("#") for link in found.links} == sections
    assert not outside(page)
    assert all(source.startswith("data:image/svg+xml;base64,") for source in found.sources)
    assert len(found.sources) >= 7
    assert "script" not in found.tags
    result = whole[0]
    for words in (result.run_id, result.snapshot, "streamrec train --data", "two_tower alone", "ease_decayed"):
        assert words in page


def test_the_ablations_are_on_the_page_and_in_the_run(page: str, whole: tuple[TrainResult, Settings]):
    result, settings = whole
    found = result.evaluation.ablations
    assert {part.name for part in found.of("source")} == set(SOURCES)
    assert len(found.of("features")) >= 8
    assert {part.name for part in found.of("rule")} >= {"category_cap", "all rules"}
    for part in found.parts:
        assert part.name in page
    run = Registry.open(settings).run_folder(result.run_id, "tables")
    assert run is not None
    logged = json.loads((run / "ablations.json").read_text())
    assert len(logged["data"]) == len(found.parts)
    json.dumps(found.plain(), allow_nan=False)


def facts(words: str) -> Facts:
    check = Check(name=words, verdict="fail", detail=words, command=words)
    return Facts(
        run_id=words,
        data_name=words,
        data_source=words,
        data_digest=words,
        rows={words: 1},
        cut_us=1,
        final_us=2,
        until_us=1,
        seed=0,
        rules=words,
        feature_hash=words,
        code=CodeState(words, True, words),
        config={words: words},
        seconds=1.0,
        importance={words: 0.1},
        calibration=Choice("platt", words),
        policy=QualityPolicy(),
        evidence={"ranking": [check]},
        warnings=[words],
    )


@pytest.mark.parametrize(
    ("gone", "verdict"), [("", "pass"), ("lineage", "pass"), ("latency", "inconclusive"), ("slices", "inconclusive")]
)
def test_a_check_that_nobody_made_leaves_the_page_open(gone: str, verdict: str):
    there = [Check(name=name, verdict="pass", detail="") for name in wanted("streamrec-ranking") if name != gone]
    assert replace(facts("x"), evidence={"ranking": there}).readiness == verdict


def test_hostile_words_of_the_data_stay_words(whole: tuple[TrainResult, Settings]):
    """Values of slices, names of columns, a data set's name: also in the pictures, where a dollar begins no formula."""
    judged = whole[0].evaluation
    funnel = replace(judged.funnel, name=HOSTILE, slices={HOSTILE: next(iter(judged.funnel.slices.values()))})
    impact = Impact(HOSTILE, {HOSTILE: 1.0}, {HOSTILE: 9}, 0.5, 0.4, 0.6, HOSTILE, HOSTILE)
    study = replace(judged.study, impacts=(impact,))
    text = report(facts(HOSTILE), replace(judged, funnel=funnel, study=study, recall_by_k={HOSTILE: {10: 0.5}}))
    found = Found(text)
    assert "script" not in found.tags
    assert all(source.startswith("data:image/svg+xml;base64,") for source in found.sources)
    assert "&lt;script&gt;" in text


def test_without_a_test_window_the_page_tells_of_the_rest():
    found = Found(report(facts("word"), None))
    assert {"checks", "importance", "lineage"} <= set(found.ids)
    assert "ladder" not in found.ids


def test_the_same_figures_give_the_same_page(whole: tuple[TrainResult, Settings]):
    judged = whole[0].evaluation
    assert report(facts("word"), judged) == report(facts("word"), judged)
