"""Spans: what they are made of, whose trace they join, where they go; and that nothing is loaded while they are off."""

import json
import logging
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from bentos.recommender.trace import Trace
from bentos.recommender.tracing import LogExporter, OtlpJson, Tracing
from bentos.recommender.types import Query, Slate

PARENT = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
USER = "u-of-the-tests"


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
