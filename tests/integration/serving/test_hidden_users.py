"""A real process that hides its users: their names are in no log of answers, and events still find their answers."""

import time

from bentos.telemetry.contexts import read_contexts
from bentos.telemetry.exposures import read_exposures
from contracts.dataset import Positive
from contracts.user_keys import UserKeys, rotate
from features.labels import LabelRule
from monitoring.labels.joined import HOUR_US, Joined
from tests.serving_processes import TOKEN, running

USER = "u7"


def test_a_user_is_hidden_in_the_logs_of_answers_and_found_again_with_the_keys(world, tmp_path):
    home, file = tmp_path / "home", tmp_path / "users.json"
    rotate(file, 0)
    keys = UserKeys(file)
    command = ["-m", "cli", "serve", "--port", "0", "--json", "--drain-s", "0"]
    with running(command, home, world, STREAMREC_USER_KEYS=str(file)) as served, served.http as http:
        answer = served.recommend(user_id=USER, k=5)
        request_id, item_id = answer["request_id"], answer["items"][0]["item_id"]
        told = http.get(f"/v1/requests/{request_id}", headers={"authorization": f"Bearer {TOKEN}"}).json()
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        event = {"event_id": "e1", "user_id": USER, "item_id": item_id, "event": "click", "timestamp": now}
        assert http.post("/v1/events", json=event | {"request_id": request_id}).status_code == 202
    assert (answer["user_id"], told["user_id"]) == (USER, keys.hide(USER))
    for read in (read_exposures, read_contexts):
        assert read(home)["user_id"].to_pylist() == [keys.hide(USER)]
    assert [path for path in (home / "log").rglob("*.seg") if b"\xa2u7" in path.read_bytes()] == []
    rule, later_us = LabelRule((Positive(event="click"),)), time.time_ns() // 1000 + 30 * HOUR_US
    joined = Joined.open(home, rule, now_us=later_us, keys=keys).table(["item_id", "label"])
    assert [row["item_id"] for row in joined.to_pylist() if row["label"]] == [item_id]
