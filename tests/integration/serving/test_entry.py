"""What a consumer sees over HTTP, from one real worker."""

import datetime
import json
import re
import socket
import uuid

import httpx
import pytest

from tests.serving_processes import TOKEN, free_port, running, wait_until


@pytest.fixture(scope="module")
def served(world, tmp_path_factory):
    port = free_port()
    arguments = [
        "-m",
        "bentos.recommender.worker",
        "--bundles",
        str(world),
        "--port",
        str(port),
        "--drain-s",
        "0",
        "--headers-s",
        "2",
    ]
    with running(arguments, tmp_path_factory.mktemp("home"), world, url=f"http://127.0.0.1:{port}") as served:
        yield served


def post(served, content, path="/v1/recommendations", **headers):
    return httpx.post(f"{served.url}{path}", content=content, headers=headers, timeout=30)


def problem(response, status):
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    document = response.json()
    assert {"type", "title", "status", "detail", "request_id"} <= set(document)
    assert document["status"] == status
    assert document["request_id"] == response.headers["x-request-id"]
    return document


def click(event_id, item_id="i1", user_id="u1"):
    now = datetime.datetime.now(datetime.UTC).isoformat()
    return {"event_id": event_id, "user_id": user_id, "item_id": item_id, "event": "click", "timestamp": now}


def test_a_known_user_gets_a_full_slate_with_everything_the_contract_names(served):
    answer = served.recommend(user_id="u3", k=20, context={"device": "ios", "country": "DE"})
    assert answer["degradation"] == "full"
    assert (answer["user_id"], answer["variant"], answer["bento"]) == ("u3", "champion", "unbuilt")
    assert uuid.UUID(answer["request_id"]).version == 7
    assert [item["position"] for item in answer["items"]] == list(range(1, 21))
    assert len({item["item_id"] for item in answer["items"]}) == 20
    assert all(item["sources"] for item in answer["items"])


def test_an_unknown_user_is_not_an_error(served):
    answer = served.recommend(user_id="nobody has met me: Ωλ 🎈", k=5)
    assert len(answer["items"]) == 5


def test_debug_tells_stages_features_and_candidates(served):
    debug = served.recommend(user_id="u3", debug=True)["debug"]
    assert {"rank", "merge"} <= set(debug["stages_ms"])
    assert any(feature["name"] == "user_last_10_interactions" for feature in debug["features"])
    assert sum(debug["candidates"].values()) > 100


def test_the_answer_carries_its_request_id_in_a_header(served):
    response = post(served, b'{"user_id": "u3"}')
    assert response.headers["x-request-id"] == response.json()["request_id"]


def test_an_empty_exclude_list_changes_nothing_and_a_long_one_is_kept_to(served):
    plain = [i["item_id"] for i in served.recommend(user_id="u5", k=10)["items"]]
    assert [i["item_id"] for i in served.recommend(user_id="u5", k=10, exclude=[])["items"]] == plain
    exclude = plain[:3] + [f"unknown{i}" for i in range(9_997)]
    rest = {i["item_id"] for i in served.recommend(user_id="u5", k=10, exclude=exclude)["items"]}
    assert len(rest) == 10
    assert not rest & set(plain[:3])


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b"{}", "user_id"),
        (b'{"user_id": 5}', "user_id"),
        (b'{"user_id": "u1", "k": 0}', "k"),
        (b'{"user_id": "u1", "k": -1}', "k"),
        (b'{"user_id": "u1", "k": 1000000}', "k"),
        (b'{"user_id": "u1", "k": true}', "k"),
        (b'{"user_id": "u1", "exclude": [1]}', "exclude[0]"),
        (b'{"user_id": "u1", "surprise": 1}', "surprise"),
        (b'{"user_id": "\xff\xfe"}', None),
        (b"user_id=u1", None),
        (b"", None),
    ],
)
def test_a_bad_body_is_a_400_that_names_the_field(served, body, field):
    assert problem(post(served, body), 400).get("field") == field


def test_a_body_of_ten_megabytes_is_a_413_that_the_client_can_read(served):
    body = b'{"user_id": "u1", "exclude": ["' + b"x" * 10_000_000 + b'"]}'
    problem(post(served, body), 413)


def test_a_chunked_body_over_the_limit_is_a_413_too(served):
    problem(post(served, (b"x" * 65_536 for _ in range(20))), 413)


def test_an_unknown_path_and_a_wrong_method_are_problem_documents(served):
    problem(httpx.get(f"{served.url}/v1/nothing"), 404)
    response = httpx.delete(f"{served.url}/v1/recommendations")
    problem(response, 405)
    assert response.headers["allow"] == "POST"


def test_events_are_accepted_once_and_a_bad_one_is_named(served):
    batch = [click("e-1"), click("e-2")]
    response = post(served, json.dumps(batch), "/v1/events")
    assert (response.status_code, response.json()) == (202, {"accepted": 2, "duplicates": 0})
    assert post(served, json.dumps(batch), "/v1/events").json() == {"accepted": 0, "duplicates": 2}
    bad = [click("e-3"), {**click("e-4"), "timestamp": "yesterday"}]
    assert "timestamp" in problem(post(served, json.dumps(bad), "/v1/events"), 400)["field"]
    problem(post(served, b"[]", "/v1/events"), 400)


def test_the_context_of_a_request_needs_the_token_and_names_its_inputs(served):
    answer = served.recommend(user_id="u7", k=3, context={"country": "FR"})
    url = f"{served.url}/v1/requests/{answer['request_id']}"
    response = httpx.get(url)
    problem(response, 401)
    assert response.headers["www-authenticate"] == "Bearer"
    problem(httpx.get(url, headers={"Authorization": "Bearer wrong"}), 403)
    allowed = {"Authorization": f"Bearer {TOKEN}"}
    record = wait_until(lambda: (r := httpx.get(url, headers=allowed)).status_code == 200 and r.json(), why="record")
    assert (record["user_id"], record["k"], record["context"]) == ("u7", 3, {"country": "FR"})
    assert record["ranked_by"] == "dcn"
    problem(httpx.get(f"{served.url}/v1/requests/{uuid.uuid4()}", headers=allowed), 404)
    problem(httpx.get(f"{served.url}/v1/requests/..%2fetc", headers=allowed), 400)


def test_readyz_names_components_device_and_versions(served):
    ready = served.ready()
    assert (ready["status"], ready["best"], ready["topology"]) == ("ready", "full", "colocated")
    assert {"retrieval", "ranking", "fallback", "online_store", "events", "rules"} <= set(ready["components"])
    assert ready["device"] == {"wanted": "cpu", "device": "cpu", "provider": "CPUExecutionProvider"}
    assert httpx.get(f"{served.url}/livez").status_code == 200


def test_metrics_count_answers_and_errors(served):
    def count(text, name):
        return sum(float(m) for m in re.findall(rf"^{re.escape(name)} (\S+)$", text, re.MULTILINE))

    ok = 'streamrec_requests_total{route="/v1/recommendations",status="200"}'
    bad = 'streamrec_requests_total{route="/v1/recommendations",status="400"}'
    before = httpx.get(f"{served.url}/metrics").text
    served.recommend(user_id="u1")
    post(served, b"{}")
    after = httpx.get(f"{served.url}/metrics").text
    assert count(after, ok) - count(before, ok) == 1
    assert count(after, bad) - count(before, bad) == 1
    assert 'streamrec_recommendation_seconds_bucket{degradation="full",le="0.01"}' in after


def test_the_openapi_document_and_bentomls_own_pages_are_there(served):
    assert httpx.get(f"{served.url}/v1/openapi.json").json()["openapi"].startswith("3.1")
    assert httpx.get(f"{served.url}/schema.json").json()["name"] == "Recommender"


def test_what_is_not_http_does_not_disturb_the_others(served):
    with socket.create_connection(("127.0.0.1", int(served.url.rpartition(":")[2])), timeout=10) as raw:
        raw.sendall(b"\x16\x03\x01 not http\r\n\r\n")
        assert b"400" in raw.recv(4096)
    assert served.recommend(user_id="u1")["items"]


def test_a_connection_that_never_ends_its_headers_is_closed_and_a_served_one_is_kept(served):
    port = int(served.url.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port), timeout=20) as slow, served.http as kept:
        assert kept.get("/livez").status_code == 200
        slow.sendall(b"POST /v1/recommendations HTTP/1.1\r\nHost: x\r\n")
        assert slow.recv(100) == b""
        assert kept.get("/livez").status_code == 200
