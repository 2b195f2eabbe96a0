"""Events joined to exposures, by hand: what counts, what does not, and when a label is known."""

import pytest

from bentos.telemetry.event_store import EventStore
from bentos.telemetry.exposures import ExposureLog
from contracts.dataset import Positive
from contracts.events import Event
from contracts.exposures import Exposure, Versions
from contracts.user_keys import UserKeys, rotate
from features.labels import LabelRule
from monitoring.labels.joined import HOUR_US, Joined

T0 = 20_000 * 24 * HOUR_US
RULE = LabelRule((Positive(event="purchase", attribution_h=48), Positive(event="click", attribution_h=2)))
GROWN_US = T0 + 50 * HOUR_US


def shown(number: int, user: str, *items: str, at_us: int = T0) -> Exposure:
    versions = Versions("b", "r", "k", "f", "rules")
    who = {"unit": user, "user_id": user}
    return Exposure(
        f"r{number}", at_us, 5, **who, assigned="champion", served="champion", probability=1.0, exploration=False,
        slate_propensity=None, outcome="ok", degradation="full", item_ids=list(items), versions=versions,
    )  # fmt: skip


def act(event_id: str, user: str, item: str, event: str, hours: float, request: str | None) -> Event:
    at = T0 + int(hours * HOUR_US)
    return Event(event_id, user, item, event, at, at, request_id=request)


@pytest.fixture
def home(tmp_path):
    exposures = ExposureLog(tmp_path)
    exposures.append(shown(1, "u1", "i1", "i2", "i3"))
    exposures.append(shown(2, "u2", "i1", "i4"))
    exposures.close()
    store = EventStore(tmp_path)
    store.append(
        [
            [
                act("e1", "u1", "i1", "click", 1.0, "r1"),
                act("e2", "u1", "i1", "purchase", 30.0, "r1"),  # repeated: the click counted first
                act("e3", "u1", "i2", "click", 2.5, "r1"),  # late
                act("e4", "u1", "i9", "click", 0.1, "r1"),  # not in that slate
                act("e5", "u1", "i4", "click", 0.1, "r2"),  # another user's answer
                act("e6", "u2", "i4", "purchase", 47.0, "r2"),
                act("e7", "u2", "i1", "view", 0.1, "r2"),  # no positive at all
                act("e8", "u2", "i1", "click", 0.1, None),
                act("e9", "u2", "i1", "click", 0.1, "r77"),
                act("e0", "u2", "i1", "click", -1.0, "r2"),  # an hour before the answer it names
            ]
        ]
    )
    store.close()
    return tmp_path


def test_each_shown_item_has_its_label_and_each_event_its_reason(home):
    joined = Joined.open(home, RULE, now_us=GROWN_US)
    table = joined.table(["request_id", "item_id", "position", "label", "label_event", "label_lag_s"]).to_pylist()
    found = {(row["request_id"], row["item_id"]): row for row in table}
    assert {key: row["label"] for key, row in found.items()} == {
        ("r1", "i1"): 1.0,
        ("r1", "i2"): 0.0,
        ("r1", "i3"): 0.0,
        ("r2", "i1"): 0.0,
        ("r2", "i4"): 1.0,
    }
    assert (found["r1", "i1"]["label_event"], found["r1", "i1"]["label_lag_s"]) == ("click", 3600.0)
    assert found["r2", "i4"]["position"] == 2
    assert joined.events == {
        "joined": 2,
        "repeated": 1,
        "late": 1,
        "early": 1,
        "not_shown": 1,
        "another_user": 1,
        "no_request": 1,
        "unknown_request": 1,
    }
    assert (joined.rows, joined.mature, joined.positive) == (5, 5, 2)


def test_an_event_that_names_another_position_than_its_item_had_is_counted_and_told(home):
    where = {"r1": ("i3", 3), "r2": ("i4", 1)}  # i4 was second
    store = EventStore(home)
    store.append(
        [
            [
                Event(f"p{request}", user, item, "click", T0, T0, request_id=request, position=position)
                for (request, (item, position)), user in zip(where.items(), ("u1", "u2"), strict=True)
            ]
        ]
    )
    store.close()
    joined = Joined.open(home, RULE, now_us=GROWN_US)
    labels = {(r["request_id"], r["item_id"]): r["label"] for r in joined.table().to_pylist()}
    assert (labels["r1", "i3"], labels["r2", "i4"]) == (1.0, 1.0)  # the item is what was acted on
    assert joined.misplaced == 1
    assert "1 events name another position" in joined.problems[-1]


def test_no_label_is_known_before_every_window_has_passed(home):
    joined = Joined.open(home, RULE, now_us=T0 + 48 * HOUR_US)  # the windows have, the hour for late events has not
    table = joined.table()
    assert table["label"].null_count == table.num_rows
    assert (joined.mature, joined.positive, joined.events["joined"]) == (0, 0, 2)


def test_an_event_that_came_late_is_counted_at_its_own_time(home):
    store = EventStore(home)
    store.append([[Event("e10", "u1", "i3", "click", T0 + HOUR_US, T0 + 49 * HOUR_US, request_id="r1")]])
    store.close()
    table = Joined.open(home, RULE, now_us=GROWN_US).table()
    assert [row["label"] for row in table.to_pylist() if row["item_id"] == "i3"] == [1.0]


def test_users_hidden_under_two_keys_are_joined_under_each(tmp_path):
    path = tmp_path / "users.json"
    store = EventStore(tmp_path)
    for request, more in ((0, {}), (1, {"keys": 1}), (2, {"keys": 2})):  # by name, under the first key, the second
        if more:
            rotate(path, request)
        log = ExposureLog(tmp_path, hide=UserKeys(path).hide if more else None)
        log.append(shown(request, "u1", "i1"))
        log.append(shown(10 + request, "u2", "i1"))
        log.close()
        acts = [act(f"a{request}", "u1", "i1", "click", 1.0, f"r{request}")]
        acts += [act(f"b{request}", "u1", "i1", "click", 1.0, f"r{10 + request}")]
        store.append([acts])
    store.close()
    joined = Joined.open(tmp_path, RULE, now_us=GROWN_US, keys=UserKeys(path))
    assert (joined.table()["label"].to_pylist().count(1.0), joined.events["another_user"]) == (3, 3)
    unkeyed = Joined.open(tmp_path, RULE, now_us=GROWN_US)
    assert (sum(unkeyed.table()["label"].to_pylist()), unkeyed.events["another_user"]) == (1.0, 5)


def test_nothing_shown_is_an_empty_table(tmp_path):
    joined = Joined.open(tmp_path, RULE, now_us=GROWN_US)
    assert joined.table().num_rows == 0
    assert joined.problems == []
