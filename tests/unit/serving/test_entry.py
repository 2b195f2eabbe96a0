import asyncio
import json
from collections import Counter

import pytest

from bentos.recommender import openapi
from bentos.recommender.entry import ROUTES, Entry
from bentos.recommender.metrics import Metrics
from contracts.errors import Overloaded, Unreachable
from contracts.http import EventsAccepted
from contracts.settings import Settings


class Runtime:
    """Stands for bentos.recommender.runtime.Runtime where a test needs a state that a real one is rarely in."""

    phase = "serving"
    bento = "streamrec:test"
    tracing = None
    settings = Settings()

    def __init__(self, recommend=None):
        self.metrics = Metrics()
        self.recommend = recommend

    def admit(self, began, front, within_ms):
        return "full"

    def left(self, aim):
        pass


def call(app, method="GET", path="/v1/openapi.json", body=b""):
    """Status, headers and body of one request."""
    return asyncio.run(answer_of(app, method, path, body))


async def answer_of(app, method, path, body=b"{}"):
    sent = []

    async def receive():
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message):
        sent.append(message)

    await app({"type": "http", "method": method, "path": path, "headers": []}, receive, send)
    headers = {key.decode(): value.decode() for key, value in sent[0]["headers"]}
    return sent[0]["status"], headers, b"".join(m.get("body", b"") for m in sent[1:])


async def status_of(app, path, body=b"{}"):
    return (await answer_of(app, "POST", path, body))[0]


async def inner(scope, receive, send):
    await send({"type": "http.response.start", "status": 299, "headers": []})
    await send({"type": "http.response.body", "body": b"BentoML's"})


def entry(runtime, **options):
    return Entry(inner, lambda: runtime, **options)


def test_what_is_not_ours_is_handed_on():
    assert call(entry(None), path="/schema.json")[0] == 299
    assert call(entry(None), path="/")[2] == b"BentoML's"


def test_while_it_loads_it_lives_and_is_not_ready():
    assert call(entry(None), path="/livez")[0] == 200
    for path in ("/readyz", "/metrics", "/v1/openapi.json"):
        status, headers, body = call(entry(None), path=path)
        assert (status, headers["content-type"]) == (503, "application/problem+json")
        assert headers["retry-after"] == "1"
        assert json.loads(body)["status"] == 503


def test_another_method_is_told_the_right_one():
    status, headers, body = call(entry(Runtime()), method="GET", path="/v1/recommendations")
    assert (status, headers["allow"]) == (405, "POST")
    assert "POST" in json.loads(body)["detail"]


def test_head_has_the_headers_and_no_body():
    status, headers, body = call(entry(Runtime()), method="HEAD")
    assert (status, body) == (200, b"")
    assert int(headers["content-length"]) == len(openapi.document())


def test_too_many_at_once_are_told_when_to_come_again():
    status, headers, body = call(entry(Runtime(), max_in_flight=0))
    assert (status, headers["retry-after"]) == (429, "1")
    assert json.loads(body)["type"].endswith("overloaded")


def test_events_that_hang_leave_room_for_recommendations():
    stored = asyncio.Event()

    async def accept_events(_):
        await stored.wait()
        return EventsAccepted(accepted=1, duplicates=0)

    async def recommend(*_):
        raise Overloaded("it came as far as this")

    async def run():
        runtime = Runtime(recommend)
        runtime.accept_events = accept_events
        app = entry(runtime, max_in_flight=8)
        held = [asyncio.create_task(status_of(app, "/v1/events")) for _ in range(12)]
        for _ in range(20):  # turns of the loop: all have come as far as they get
            await asyncio.sleep(0)
        asked = await status_of(app, "/v1/recommendations", b'{"user_id": "u"}')
        stored.set()
        return asked, Counter(await asyncio.gather(*held))

    assert asyncio.run(run()) == (503, {202: 4, 429: 8})


@pytest.mark.parametrize(("raised", "wanted"), [(RuntimeError("a secret"), 500), (Overloaded("a secret"), 503)])
def test_what_no_rung_could_answer_is_a_problem_document_with_its_request_id(raised, wanted):
    async def recommend(*_):
        raise raised

    runtime = Runtime(recommend)
    status, headers, body = call(entry(runtime), "POST", "/v1/recommendations", b'{"user_id": "u"}')
    problem = json.loads(body)
    assert (status, problem["status"], headers["content-type"]) == (wanted, wanted, "application/problem+json")
    assert problem["request_id"] == headers["x-request-id"]
    assert "secret" not in problem["detail"]
    assert f'route="/v1/recommendations",status="{wanted}"'.encode() in runtime.metrics.render()


def test_events_that_are_not_stored_are_told_what_to_do_and_no_path_of_the_machine():
    async def accept_events(_):
        raise Unreachable("event store /srv/home/events.db: database or disk is full")

    runtime = Runtime()
    runtime.accept_events = accept_events
    status, headers, body = call(entry(runtime), "POST", "/v1/events", b"{}")
    assert (status, headers["retry-after"]) == (503, "1")
    assert "/srv" not in body.decode()
    assert "send them again" in json.loads(body)["detail"]


def test_the_openapi_document_describes_every_route_and_method_and_each_reference_resolves():
    document = json.loads(openapi.document())
    assert {path: {m.upper() for m in methods} for path, methods in document["paths"].items()} == {
        path: set(methods) for path, methods in ROUTES.items()
    }
    text = openapi.document().decode()
    for name in document["components"]["schemas"]:
        text = text.replace(f'"#/components/schemas/{name}"', '"found"')
    assert "#/components" not in text


def test_the_openapi_document_carries_the_limits_of_the_decoder():
    schemas = json.loads(openapi.document())["components"]["schemas"]
    request = schemas["RecommendationRequest"]
    assert request["properties"]["k"]["maximum"] == 500
    assert request["properties"]["exclude"]["maxItems"] == 10_000
    assert request["properties"]["context"]["maxProperties"] == 32
    assert request["additionalProperties"] is False
    assert set(schemas["Problem"]["required"]) == {"type", "title", "status", "detail", "request_id"}
