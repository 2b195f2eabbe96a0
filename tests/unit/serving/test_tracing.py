"""Spans: what they are made of, whose trace they join, where they go; and that nothing is loaded while they are off."""

import asyncio
import json
import logging
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from benchmarks.reference_world import write_world
from bentos.recommender.assemble import load_models
from bentos.recommender.bundles import pinned
from bentos.recommender.entry import Entry
from bentos.recommender.runtime import Runtime
from bentos.recommender.trace import Trace
from bentos.recommender.tracing import LogExporter, OtlpJson, Tracing
from bentos.recommender.types import Query, Slate
from contracts.settings import Settings

PARENT = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
USER = "u-of-the-tests"
SOURCES_HERE = ("two_tower", "graph", "content", "trending")


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    write_world(folder, users=20, items=100)
    return folder


def answered(began):
    trace = Trace()
    trace.add("rank", began + 0.001, began + 0.004)
    trace.add("rerank", began + 0.004, began + 0.005)
    query = Query("r1", USER, 20, 0, began + 1, {"country": "Zwickau"})
    return query, Slate(("i1",), (1.0,), ((),), "full", "dcn", trace=trace)


def traced(exporter, share=1.0, parent=None):
    began = time.perf_counter()
    tracing = Tracing("log", share, "streamrec:test", exporter)
    tracing.record(*answered(began), began, parent)
    tracing.close()


def test_a_request_is_a_span_and_each_stage_one_inside_it_with_their_own_times():
    kept = InMemorySpanExporter()
    traced(kept)
    spans = {span.name: span for span in kept.get_finished_spans()}
    assert set(spans) == {"recommend", "rank", "rerank"}
    whole, rank = spans["recommend"], spans["rank"]
    assert rank.parent.span_id == whole.context.span_id
    assert rank.end_time - rank.start_time == pytest.approx(3e6, abs=2e3)
    assert rank.start_time - whole.start_time == pytest.approx(1e6, abs=1e5)
    assert whole.start_time == pytest.approx(time.time_ns(), abs=60e9)
    assert dict(whole.attributes) == {
        "streamrec.request_id": "r1",
        "streamrec.degradation": "full",
        "streamrec.ranked_by": "dcn",
        "streamrec.aim": "full",
        "streamrec.k": 20,
    }


def test_a_traceparent_is_joined_and_decides_whether_the_trace_is_kept():
    for share, parent, n in ((0.0, PARENT, 3), (1.0, PARENT[:-1] + b"0", 0), (0.0, None, 0), (1.0, b"nonsense", 3)):
        kept = InMemorySpanExporter()
        traced(kept, share, parent)
        spans = kept.get_finished_spans()
        assert len(spans) == n
        if n and parent == PARENT:
            assert {format(span.context.trace_id, "032x") for span in spans} == {PARENT.decode().split("-")[1]}


def test_the_log_has_a_line_a_span_and_nothing_of_who_asked(caplog):
    with caplog.at_level(logging.INFO):
        traced(LogExporter(), parent=PARENT)
    lines = [record for record in caplog.records if record.name == "streamrec.traces"]
    assert [record.fields["trace_id"] for record in lines] == [PARENT.decode().split("-")[1]] * 3
    assert USER not in caplog.text
    assert "Zwickau" not in caplog.text


def test_a_collector_gets_otlp_as_json_and_one_that_is_away_is_told_once(caplog):
    got = []

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self):
            got.append((self.path, json.loads(self.rfile.read(int(self.headers["content-length"])))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_):
            pass

    server = HTTPServer(("127.0.0.1", 0), Collector)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    exporter = OtlpJson(f"http://127.0.0.1:{server.server_port}/")
    traced(exporter, parent=PARENT)
    server.shutdown()
    server.server_close()
    thread.join()
    ((path, document),) = got
    assert path == "/v1/traces"
    (resource,) = document["resourceSpans"]
    assert {"key": "service.name", "value": {"stringValue": "streamrec"}} in resource["resource"]["attributes"]
    (scope,) = resource["scopeSpans"]
    spans = {span["name"]: span for span in scope["spans"]}
    assert spans["recommend"]["parentSpanId"] == PARENT.decode().split("-")[2]
    assert spans["rank"]["parentSpanId"] == spans["recommend"]["spanId"]
    assert spans["recommend"]["kind"] == 2
    assert {"key": "streamrec.k", "value": {"intValue": "20"}} in spans["recommend"]["attributes"]
    assert USER not in json.dumps(document)
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            traced(exporter)
    assert [record.levelname for record in caplog.records if "cannot be sent" in record.message] == ["WARNING"]


def test_while_traces_are_off_nothing_of_it_is_loaded():
    code = "import sys, bentos.recommender.runtime; print('bentos.recommender.tracing' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.strip() == "False"


def test_a_served_request_has_a_span_for_every_stage_that_it_went_through(world, tmp_path, monkeypatch):
    kept = InMemorySpanExporter()
    monkeypatch.setattr("bentos.recommender.tracing.LogExporter", lambda: kept)
    answer = asyncio.run(served_once(world, tmp_path, PARENT))
    assert answer["degradation"] == "full"
    spans = {span.name: span for span in kept.get_finished_spans()}
    whole = spans.pop("recommend")
    assert {"store", "hydrate", "merge", "filter", "rows", "rank", "rerank"} < set(spans)
    assert {f"source.{name}" for name in SOURCES_HERE} == {name for name in spans if name.startswith("source.")}
    assert {name: (span.end_time - span.start_time) / 1e6 for name, span in spans.items()} == {
        name: pytest.approx(ms, abs=0.002) for name, ms in answer["debug"]["stages_ms"].items()
    }
    assert format(whole.context.trace_id, "032x") == PARENT.decode().split("-")[1]
    assert whole.attributes["streamrec.request_id"] == answer["request_id"]
    for span in spans.values():
        assert span.parent.span_id == whole.context.span_id
        assert whole.start_time <= span.start_time <= span.end_time <= whole.end_time
    assert (
        spans["store"].end_time <= spans["merge"].start_time <= spans["rank"].start_time <= spans["rerank"].start_time
    )


async def served_once(world, home, traceparent):
    """The answer of one request: the entry, the real funnel, and spans as `traces = "log"` has them made."""
    settings = Settings(home=home, online_store="memory", deadline_ms=10_000, traces="log", trace_share=0.0)
    pins = pinned(None, world)
    runtime = Runtime(settings, pins, load_models(pins.folders))
    runtime.phase = "serving"
    sent = []

    async def receive():
        body = json.dumps({"user_id": USER, "k": 5, "debug": True}).encode()
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": "/v1/recommendations"}
    await Entry(None, lambda: runtime)({**scope, "headers": [(b"traceparent", traceparent)]}, receive, send)
    await runtime.close()  # and with it what is left to send
    assert sent[0]["status"] == 200
    return json.loads(b"".join(message.get("body", b"") for message in sent[1:]))
