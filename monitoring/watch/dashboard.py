"""The Grafana dashboard as code: `python -m monitoring.watch.dashboard` writes deploy/grafana/streamrec.json.

A row is (title, panels); a panel is (title, unit, queries); a query is (expression, legend). A test holds every metric
name against those that the processes have.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

FILE = Path(__file__).resolve().parents[2] / "deploy" / "grafana" / "streamrec.json"
WIDTH, HEIGHT, ACROSS = 8, 7, 3

Query = tuple[str, str]
Panel = tuple[str, str, Sequence[Query]]

_OURS = 'route="/v1/recommendations"'
_BUCKETS = "streamrec_gateway_recommendation_seconds_bucket"
ROWS: Sequence[tuple[str, Sequence[Panel]]] = (
    (
        "Alerts and service levels",
        (
            (
                "Alerts",
                "short",
                [
                    (
                        "sum by (alertname, model, severity, alertstate) (streamrec_alerts)",
                        "{{severity}} {{alertname}} {{model}} ({{alertstate}})",
                    )
                ],
            ),
            ("Error budget, times too fast", "short", [("streamrec_burn_rate", "{{level}} {{window}}")]),
            (
                "Signals that are not well",
                "short",
                [("streamrec_signal_verdict > 0", "{{signal}} {{model}}")],
            ),
        ),
    ),
    (
        "Requests",
        (
            (
                "Requests by status",
                "reqps",
                [(f"sum by (status) (rate(streamrec_gateway_requests_total{{{_OURS}}}[5m]))", "{{status}}")],
            ),
            (
                "Latency",
                "s",
                [
                    (f"histogram_quantile({q}, sum by (le) (rate({_BUCKETS}[5m])))", f"p{round(q * 100)}")
                    for q in (0.5, 0.95, 0.99)
                ],
            ),
            (
                "Rungs of the ladder",
                "reqps",
                [("sum by (degradation) (rate(streamrec_recommendations_total[5m]))", "{{degradation}}")],
            ),
            (
                "Stages, mean",
                "s",
                [
                    (
                        "sum by (stage) (rate(streamrec_stage_seconds_sum[5m]))"
                        " / sum by (stage) (rate(streamrec_stage_seconds_count[5m]))",
                        "{{stage}}",
                    )
                ],
            ),
            (
                "Admission",
                "reqps",
                [("sum by (aim) (rate(streamrec_admissions_total[5m]))", "{{aim}}")],
            ),
            ("Health of parts", "short", [("min by (component) (streamrec_component_health)", "{{component}}")]),
        ),
    ),
    (
        "Releases",
        (
            (
                "Answers by assigned and served variant",
                "reqps",
                [
                    (
                        "sum by (assigned, served) (rate(streamrec_gateway_recommendations_total[5m]))",
                        "{{assigned}} → {{served}}",
                    )
                ],
            ),
            (
                "Failovers and last resorts",
                "reqps",
                [
                    ("sum by (variant) (rate(streamrec_gateway_failovers_total[5m]))", "from {{variant}}"),
                    ("sum by (rung) (rate(streamrec_gateway_last_resorts_total[5m]))", "{{rung}}"),
                ],
            ),
            (
                "Routing table",
                "short",
                [
                    ("max(streamrec_gateway_table_version)", "version"),
                    ("max(streamrec_gateway_table_refused)", "refused"),
                ],
            ),
        ),
    ),
    (
        "Data and models",
        (
            (
                "Drift, skew, outcomes: value",
                "short",
                [('streamrec_signal_value{signal=~"drift.*|skew.*|outcome.*|slice.*"}', "{{signal}} {{model}}")],
            ),
            (
                "Ages (hours)",
                "h",
                [('streamrec_signal_value{signal=~"age.*"}', "{{signal}} {{model}}")],
            ),
            ("Streaming features", "s", [('streamrec_signal_value{signal="level.streaming_features"}', "age")]),
            (
                "Records dropped",
                "short",
                [
                    ('sum by (log) (streamrec_records{state="dropped"})', "{{log}}"),
                    ('sum by (log) (streamrec_gateway_records{state="dropped"})', "gateway {{log}}"),
                ],
            ),
            ("Events", "reqps", [("sum by (result) (rate(streamrec_events_total[5m]))", "{{result}}")]),
            ("Trainings", "short", [("streamrec_retrainings", "{{state}}")]),
            ("Answers for a person", "short", [('streamrec_signal_value{signal="review.open"}', "wait")]),
        ),
    ),
    (
        "The watch itself",
        (
            ("Leads", "short", [("sum(streamrec_watch_leading)", "watches that lead")]),
            ("Since the last look", "s", [("max by (check) (streamrec_check_age_seconds)", "{{check}}")]),
            (
                "Crashes, notices waiting and given up",
                "short",
                [
                    ("max by (check) (streamrec_check_crashes)", "crashes of {{check}}"),
                    ("sum by (channel) (streamrec_notices_waiting)", "waiting for {{channel}}"),
                    ("max by (channel) (streamrec_notices_given_up)", "never told on {{channel}}"),
                ],
            ),
            ("CPU of a look", "s", [("max by (check) (streamrec_check_cpu_seconds)", "{{check}}")]),
        ),
    ),
)


def dashboard() -> dict[str, Any]:
    """As Grafana imports it; the data source is chosen at import."""
    panels: list[dict[str, Any]] = []
    y = 0
    for title, row in ROWS:
        panels.append(
            {"type": "row", "title": title, "id": len(panels) + 1, "gridPos": {"x": 0, "y": y, "w": 24, "h": 1}}
        )
        y += 1
        for at, panel in enumerate(row):
            place = {"x": at % ACROSS * WIDTH, "y": y + at // ACROSS * HEIGHT, "w": WIDTH, "h": HEIGHT}
            panels.append(_panel(panel, len(panels) + 1, place))
        y += -(-len(row) // ACROSS) * HEIGHT
    return {
        "uid": "streamrec",
        "title": "StreamRec",
        "schemaVersion": 39,
        "timezone": "utc",
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "templating": {"list": [{"name": "source", "type": "datasource", "query": "prometheus"}]},
        "annotations": {"list": []},
        "panels": panels,
    }


def _panel(panel: Panel, number: int, place: dict[str, int]) -> dict[str, Any]:
    title, unit, queries = panel
    source = {"type": "prometheus", "uid": "${source}"}
    return {
        "type": "timeseries",
        "id": number,
        "title": title,
        "datasource": source,
        "gridPos": place,
        "fieldConfig": {"defaults": {"unit": unit, "min": 0}, "overrides": []},
        "targets": [
            {"refId": chr(ord("A") + n), "datasource": source, "expr": expression, "legendFormat": legend}
            for n, (expression, legend) in enumerate(queries)
        ],
    }


def text() -> str:
    return json.dumps(dashboard(), indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    FILE.parent.mkdir(parents=True, exist_ok=True)
    FILE.write_text(text())
