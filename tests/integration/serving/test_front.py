"""A Bento behind a gateway: what it heeds from a caller with the front key, and from nobody else."""

import json

import httpx
import pytest

from bentos.telemetry.exposures import read_exposures
from contracts.front import FrontOverrides
from contracts.rules import RulesDocument
from contracts.serving import SOURCES
from tests.serving_processes import free_port, running, wait_until

KEY = "a-front-key-of-the-tests"
ID = "01890000-0000-7000-8000-00000000000a"


@pytest.fixture(scope="module")
def served(world, tmp_path_factory):
    port = free_port()
    worker = ["-m", "bentos.recommender.worker", "--bundles", str(world), "--port", str(port), "--drain-s", "0"]
    home = tmp_path_factory.mktemp("home")
    with running(worker, home, world, url=f"http://127.0.0.1:{port}", STREAMREC_FRONT_KEY=KEY) as served:
        yield served


def ask(served, user="u3", key=KEY, body=(), **headers) -> httpx.Response:
    named = {f"x-streamrec-{name.replace('_', '-')}": value for name, value in headers.items() if name != "id"}
    if key is not None:
        named["x-streamrec-front"] = key
    if "id" in headers:
        named["x-request-id"] = headers["id"]
    wanted = {"user_id": user, "k": 10, "context": {"country": "DE"}, **dict(body)}
    return httpx.post(f"{served.url}/v1/recommendations", json=wanted, headers=named, timeout=30)


def overrides(rules: RulesDocument | None = None, *off: str) -> str:
    found = FrontOverrides.of(rules, off)
    return json.dumps({"rules": found.rules, "sources_off": list(off)})


def context_of(served, request_id: str) -> httpx.Response:
    return served.http.get(f"/v1/requests/{request_id}", headers={"authorization": "Bearer a-token-of-the-tests"})


def test_a_gateway_gets_its_id_back_and_what_it_must_log(served):
    answer = ask(served, id=ID).json()
    assert answer["request_id"] == ID
    assert answer["versions"]["bento"] == answer["bento"]
    assert answer["versions"]["rules"]
    assert answer["front"]["clock_us"] == 1_700_000_000_000_000  # the world's
    assert "new_user" not in answer["front"]["panel"]
    assert "new_user" in ask(served, user="nobody").json()["front"]["panel"]
    assert "no_context" in ask(served, body={"context": {}}).json()["front"]["panel"]
    assert context_of(served, ID).status_code == 200


@pytest.mark.parametrize("key", [None, "", "a-front-key-of-the-test", KEY + "x"])
def test_a_consumer_is_not_heard(served, key):
    answer = ask(served, key=key, id=ID[:-1] + "b", rung="popularity", overrides="{", deadline_ms="30000").json()
    assert answer["request_id"] != ID[:-1] + "b"
    assert answer["degradation"] == "full"
    assert "versions" not in answer
    assert "front" not in answer


def test_the_exposure_of_a_gateways_request_is_the_gateways(served):
    ours = ask(served, key=None).json()["request_id"]
    theirs = ask(served, id=ID[:-1] + "c").json()["request_id"]
    logged = lambda: {e["request_id"] for e in read_exposures(served.home).to_pylist()}  # noqa: E731
    wait_until(lambda: ours in logged(), 10, "our own exposure")
    assert theirs not in logged()


def test_the_rules_of_the_order_hold_for_this_request_alone(served):
    document = RulesDocument(version="wide", category_cap=None, fresh_floor=0, creator_floor=0, suppress_seen=False)
    plain, other = ask(served, body={"k": 50}), ask(served, body={"k": 50}, overrides=overrides(document))
    assert other.json()["versions"]["rules"] == document.digest != plain.json()["versions"]["rules"]
    assert [i["item_id"] for i in other.json()["items"]] != [i["item_id"] for i in plain.json()["items"]]
    again = ask(served, body={"k": 50}).json()
    assert again["items"] == plain.json()["items"]


def test_a_source_that_is_off_brings_nothing(served):
    off = ("two_tower", "graph", "content")
    for sources in (off, off[:1]):
        answer = ask(served, overrides=overrides(None, *sources), body={"debug": True}).json()
        assert answer["items"]
        assert not {s for item in answer["items"] for s in item["sources"]} & set(sources)
        assert not set(answer["debug"]["candidates"]) & set(sources)


def test_the_popularity_rung_is_a_list_that_is_the_same_for_all_new_users(served):
    first, second = (
        ask(served, user=user, rung="popularity", shadow="1", body={"context": {}, "k": 50}).json()
        for user in ("nobody", "nobody else")
    )
    assert first["degradation"] == first["ranked_by"] == "popularity"
    assert [i["item_id"] for i in first["items"]] == [i["item_id"] for i in second["items"]]
    assert len(first["items"]) == 50


def test_a_shadow_leaves_no_context_behind(served):
    assert ask(served, id=ID[:-1] + "d", shadow="1").status_code == 200
    assert ask(served, id=ID[:-1] + "e").status_code == 200
    wait_until(lambda: context_of(served, ID[:-1] + "e").status_code == 200, 10, "the context of the real one")
    assert context_of(served, ID[:-1] + "d").status_code == 404


def test_no_time_left_is_a_lower_rung_at_once(served):
    answer = ask(served, deadline_ms="0.01").json()
    assert answer["degradation"] in ("cached", "popularity")
    assert answer["items"]


@pytest.mark.parametrize(
    ("headers", "field"),
    [
        ({"overrides": "{"}, "x-streamrec-overrides"),
        ({"overrides": '{"rules": {"version": 1}}'}, "x-streamrec-overrides"),
        ({"overrides": '{"sources_off": ["what"]}'}, "x-streamrec-overrides"),
        ({"overrides": overrides(None, *SOURCES)}, "x-streamrec-overrides"),
        ({"deadline_ms": "soon"}, "x-streamrec-deadline-ms"),
        ({"deadline_ms": "nan"}, "x-streamrec-deadline-ms"),
        ({"rung": "first"}, "x-streamrec-rung"),
        ({"id": "x" * 65}, "x-request-id"),
    ],
)
def test_what_a_gateway_never_says_is_a_400(served, headers, field):
    answer = ask(served, **headers)
    assert (answer.status_code, answer.json()["field"]) == (400, field)
