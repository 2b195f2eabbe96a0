"""The skeleton of our HTML pages: nothing of what it is given becomes markup, nothing comes from outside."""

import re
from html.parser import HTMLParser

import pytest
from markupsafe import Markup

from registry import page

HOSTILE = "\"><script>alert('x')</script><img src=https://example.org/x onerror=alert(1)>& {0}"
VOID = {"meta", "img", "br"}


class Structure(HTMLParser):
    """Tags in order; fails on one that is closed out of turn."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_whatever_it_is_given_stays_words():
    text = page.page(
        HOSTILE,
        page.heading(HOSTILE, 1),
        page.heading(HOSTILE, anchor=HOSTILE),
        page.contents({HOSTILE: HOSTILE}),
        page.paragraph(HOSTILE, page.verdict(HOSTILE), page.verdict("pass")),
        page.code(HOSTILE),
        page.folded(HOSTILE, HOSTILE),
        page.table([HOSTILE], [[HOSTILE], [1.5], [None]]),
        page.facts([(HOSTILE, HOSTILE)]),
        page.side_by_side(page.picture(HOSTILE.encode(), HOSTILE)),
    )
    found = Structure(text)
    assert "script" not in found.tags
    assert found.tags.count("img") == 1
    assert not [name for name, _ in found.attributes if name.startswith("on")]
    assert not [value for name, value in found.attributes if name == "src" and not (value or "").startswith("data:")]


def test_a_page_allows_itself_nothing_from_outside_and_no_script():
    text = page.page("title", page.paragraph("words"))
    assert page.POLICY.replace("'", "&#39;") in text
    assert not re.findall(r"https?:|url\(|@import|<script", text)


@pytest.mark.parametrize("cell", [0.25, 1_000, "0.0781 ± 0.0066", "0.79 [0.71, 0.86]", "−3.1 %", "12 µs", "–"])
def test_what_reads_as_a_number_stands_to_the_right(cell: object):
    assert '<td class="n">' in page.table(["a"], [[cell]])


@pytest.mark.parametrize("cell", ["funnel", "3 of 9 slices within their limits", Markup("<b>1</b>")])
def test_words_stand_to_the_left(cell: object):
    assert '<td class="n">' not in page.table(["a"], [[cell]])


def test_a_bar_is_as_long_as_its_value_and_never_longer_than_the_longest():
    assert "width:3.00em" in page.bar(1.0, 2.0)
    assert "width:6.00em" in page.bar(5.0, 2.0)
    assert "minus" in page.bar(-1.0, 2.0)
    assert page.bar(float("nan"), 2.0) == page.bar(1.0, 0.0) == ""
