"""The log of a real process, after all that a client may send it."""

import json

from tests.serving_processes import TOKEN, running

USER, CITY, ITEM = "u-8817-of-the-tests", "Zwickau", "i-4711-of-the-tests"


def test_every_line_is_a_document_and_none_names_a_user_a_context_or_a_token(world, tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    (home / "log").write_text("a file where the logs' folder should be")
    (home / "events.db").write_text("not a database")
    arguments = ["-m", "cli", "serve", "--port", "0", "--json", "--drain-s", "0"]
    event = {"event_id": "e1", "user_id": USER, "item_id": ITEM, "event": "click", "timestamp": "2026-01-01T00:00:00Z"}
    env = {"STREAMREC_LOG_FORMAT": "json", "STREAMREC_TRACES": "log", "STREAMREC_TRACE_SHARE": "1"}
    with running(arguments, home, world, **env) as served, served.http as http:
        asked = {"user_id": USER, "context": {"city": CITY}, "exclude": [ITEM]}
        statuses = [
            http.post("/v1/recommendations", json=asked).status_code,
            http.post("/v1/recommendations", json=asked | {"k": CITY}).status_code,
            http.post("/v1/events", json=event).status_code,
            http.get(f"/v1/requests/{USER}", headers={"authorization": f"Bearer {TOKEN}"}).status_code,
            http.get(f"/v1/requests/{USER}", headers={"authorization": f"Bearer not-{TOKEN}"}).status_code,
        ]
    assert statuses == [200, 400, 503, 400, 403]
    text = (home / "serve.log").read_text()
    for secret in (USER, CITY, ITEM, TOKEN):
        assert secret not in text
    lines = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
    assert any("events are not stored" in line["message"] and "request_id" in line for line in lines)
    assert any(line["logger"] == "streamrec.traces" and "streamrec.request_id" in line for line in lines)
    assert {"time", "level", "logger", "message"} <= set(lines[0])
