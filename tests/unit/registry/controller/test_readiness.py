import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.routing import Upstream as Urls
from registry.readiness import (
    FALL,
    Health,
    Look,
    Prober,
    ready_look,
    slate_problem,
    smoke_test,
)
from tests.upstreams import Upstream, serve

TAG = "streamrec:a"


def until(condition: Callable[[], object], seconds: float = 5.0) -> object:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := condition():
            return found
        time.sleep(0.01)
    raise AssertionError(f"not within {seconds} s")


@pytest.fixture
def prober() -> Iterator[Prober]:
    made = Prober("front-key", period_s=0.02, timeout_s=0.3, smoke_again_s=0.0)
    yield made
    made.stop()


def after(looks: list[Look]) -> Health:
    health = Health()
    for look in looks:
        health = health.after(look)
    return health


def test_one_slow_probe_does_not_take_a_url_out_and_three_in_a_row_do() -> None:
    assert after(["ready", "late"]).ready
    assert after(["ready", "late", "late"]).ready
    assert not after(["ready", "late", "late", "late"]).ready
    assert after(["ready", "late", "late", "ready", "late", "late"]).ready


def test_a_plain_no_counts_at_once_and_a_plain_yes_too() -> None:
    assert not after(["ready", "no"]).ready
    assert after(["ready", "no", "ready"]).ready


@given(st.lists(st.sampled_from(["ready", "late", "no"])))
def test_a_url_is_ready_exactly_when_its_last_clear_word_is_yes_and_few_are_late_since(looks: list[Look]) -> None:
    clear = [n for n, look in enumerate(looks) if look != "late"]
    expected = bool(clear) and looks[clear[-1]] == "ready" and len(looks) - 1 - clear[-1] < FALL
    assert after(looks).ready is expected


@pytest.mark.parametrize("unix", [True, False])
def test_a_bento_that_answers_with_its_own_tag_is_ready(unix: bool, tmp_path: Path) -> None:
    with serve(Upstream(TAG), tmp_path / "s" if unix else None) as up:
        assert ready_look(TAG, up.url, 1) == ("ready", "")
        up.status = "degraded"
        assert ready_look(TAG, up.url, 1) == ("ready", "")


def test_what_is_unavailable_slow_another_bento_or_no_document_is_not_ready(tmp_path: Path) -> None:
    with serve(Upstream(TAG, status="unavailable")) as up:
        assert ready_look(TAG, up.url, 1) == ("no", "it is unavailable")
    with serve(Upstream("streamrec:b")) as up:
        assert ready_look(TAG, up.url, 1) == ("no", "streamrec:b answers there")
    with serve(Upstream(TAG, delay_s=0.5)) as up:
        assert ready_look(TAG, up.url, 0.1) == ("late", "no answer within 0.1 s")
    for raw in (b"", b"[]", b"{", b'"ready"', b"{}"):
        with serve(Upstream(TAG, raw=raw)) as up:
            assert ready_look(TAG, up.url, 1)[0] == "no"
    assert ready_look(TAG, f"unix:{tmp_path / 'nobody'}", 1)[0] == "no"
    for url in ("http://127.0.0.1:1", "http://127.0.0.1:port", "http://[", "nonsense", "unix:", "unix:/" + "x" * 200):
        assert ready_look(TAG, url, 1)[0] == "no", url


def test_the_prober_names_only_ready_urls_and_what_is_wrong_with_the_others(prober: Prober, tmp_path: Path) -> None:
    with serve(Upstream(TAG), tmp_path / "s") as up:
        wanted = {TAG: Urls(urls=(up.url, f"unix:{tmp_path / 'gone'}"))}
        until(lambda: prober.look(wanted).ready)
        look = prober.look(wanted)
        assert look.ready == {TAG: Urls(urls=(up.url,))}
        assert "gone" in look.problems[TAG]
    until(lambda: not prober.look(wanted).ready)


def test_a_bento_that_was_never_asked_is_not_ready(prober: Prober) -> None:
    assert prober.look({TAG: Urls(urls=("http://127.0.0.1:1",))}).ready == {}


def test_a_hanging_upstream_holds_up_neither_a_look_nor_the_others(prober: Prober) -> None:
    with serve(Upstream("streamrec:slow", delay_s=2.0)) as slow, serve(Upstream(TAG)) as quick:
        wanted = {"streamrec:slow": Urls(urls=(slow.url,)), TAG: Urls(urls=(quick.url,))}
        began = time.monotonic()
        prober.look(wanted)
        assert time.monotonic() - began < 0.1
        until(lambda: TAG in prober.look(wanted).ready, 0.25)
        until(lambda: "no answer" in prober.look(wanted).problems.get("streamrec:slow", ""))
        assert TAG in prober.look(wanted).ready


def test_a_smoke_test_shows_the_front_key_and_asks_as_a_shadow(prober: Prober) -> None:
    with serve(Upstream(TAG)) as up:
        assert smoke_test(TAG, Urls(urls=(up.url,)), "front-key") == ()
        assert {headers["x-streamrec-front"] for _, headers, _ in up.calls} == {"front-key"}
        assert {headers["x-streamrec-shadow"] for _, headers, _ in up.calls} == {"1"}
        assert len({headers["x-request-id"] for _, headers, _ in up.calls}) == len(up.calls)
        assert until(lambda: prober.smoke(TAG, Urls(urls=(up.url,))) == ())


def test_a_failed_smoke_test_is_run_again(prober: Prober) -> None:
    with serve(Upstream(TAG, items=[])) as up:
        urls = Urls(urls=(up.url,))
        wrong = until(lambda: prober.smoke(TAG, urls))
        assert isinstance(wrong, tuple)
        assert "no item" in wrong[0]
        up.items = None
        until(lambda: prober.smoke(TAG, urls) == ())


def item(n: int, **changes: object) -> dict[str, object]:
    return {"item_id": f"i{n}", "score": 0.5, "position": n, "sources": []} | changes


@pytest.mark.parametrize(
    ("items", "problem"),
    [
        ([], "no item"),
        ([item(1), item(2), item(3)], "3 items"),
        ([item(1), item(2, item_id="i1")], "an item twice"),
        ([item(1), item(3)], "positions"),
        ([item(1, score="high")], "not a slate"),
        ([item(1)], ""),
    ],
)
def test_a_slate_is_checked(items: list[dict[str, object]], problem: str) -> None:
    body = {"request_id": "r", "user_id": "u", "items": items, "degradation": "full", "ranked_by": "dcn", "bento": TAG}
    said = slate_problem(200, json.dumps(body).encode(), TAG, 2)
    assert said.startswith(problem) if problem else said == ""


def test_an_answer_of_another_bento_or_an_error_is_a_problem() -> None:
    body = {"request_id": "r", "user_id": "u", "items": [item(1)], "degradation": "full", "ranked_by": "", "bento": "x"}
    assert slate_problem(200, json.dumps({**body, "ranked_by": "dcn"}).encode(), TAG, 2) == "answered by x"
    assert slate_problem(503, b"down", TAG, 2) == "HTTP 503: down"
    assert slate_problem(200, b"<html>", TAG, 2).startswith("not a slate")
