"""A planted skew of each kind is found, in its feature, in its rows, and by its name."""

import shutil
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from bentos.telemetry.event_log import EVENTS_ARROW
from contracts.dataset import DatasetConfig, Positive
from features.offline.log import open_log
from features.registry import REGISTRY
from features.resolve import LAST_10
from monitoring.skew.labels import compare_joined, compare_labels
from monitoring.skew.offline import OncePerPair, open_offline
from monitoring.skew.rows import Logged, compare_feature, compare_interactions
from training.data import synth

DAY_US, HOUR_US = 86_400_000_000, 3_600_000_000
NO_EVENTS = EVENTS_ARROW.empty_table()
LIMIT = 0.01
FLOATS = (
    "user_positives_30d",
    "user_positives_total",
    "user_active_days_30d",
    "user_tenure_days",
    "user_avg_session_length_min",
)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    out = tmp_path_factory.mktemp("world") / "data"
    synth.write(out, users=80, items=60, days=60, seed=4)
    return out


@pytest.fixture(scope="module")
def now_us(data):
    with open_log(data) as log:
        return log.span_us()[1] + 1


@pytest.fixture(scope="module")
def users(data):
    return sorted(set(pq.read_table(data / "interactions.parquet")["user_id"].to_pylist()))


@pytest.fixture
def offline(data, users):
    with open_offline(data, NO_EVENTS, user_ids=users) as opened:
        yield opened


def logged(users, values, at_us, *, age_s=0.0, source="store"):
    return [
        Logged(f"r{n}", user, at_us, v, age_s, source) for n, (user, v) in enumerate(zip(users, values, strict=True))
    ]


def found(offline, name, rows):
    return compare_feature(REGISTRY[name], rows, lambda pairs: offline.user(name, pairs), limit=LIMIT)


@pytest.mark.parametrize("name", [*FLOATS, "user_category_preferences"])
def test_what_the_log_says_is_no_skew(offline, users, now_us, name):
    result = found(offline, name, logged(users, offline.user(name, [(u, now_us) for u in users]), now_us))
    assert (result.verdict, result.different, result.compared) == ("ok", 0, len(users))


def test_a_feature_over_another_window_is_code(offline, users, now_us):
    week = offline.log.db.execute(
        "SELECT user_id, sum(weight) FILTER (at_us >= ?) FROM log WHERE at_us < ? GROUP BY user_id",
        [now_us - 7 * DAY_US, now_us],
    ).fetchall()
    of_week = {user: float(total or 0) for user, total in week}
    result = found(offline, "user_positives_30d", logged(users, [of_week[u] for u in users], now_us))
    assert (result.verdict, result.kind) == ("breach", "code")
    assert result.different > 0.5 * len(users)
    row = result.examples[0]
    assert row["logged"] == of_week[row["entity"]] != row["offline"]


@pytest.mark.parametrize("hours", [1, -2, 5.5, -14])
def test_timestamps_in_another_time_zone_are_time(data, users, now_us, tmp_path, offline, hours):
    elsewhere = tmp_path / "shifted"
    shutil.copytree(data, elsewhere)
    table = pq.read_table(data / "interactions.parquet")
    moved = pa.array(table["timestamp"].cast(pa.int64()).to_numpy() + int(hours * HOUR_US))
    shifted = table.set_column(
        table.column_names.index("timestamp"), "timestamp", moved.cast(pa.timestamp("us", tz="UTC"))
    )
    pq.write_table(shifted, elsewhere / "interactions.parquet")
    with open_offline(elsewhere, NO_EVENTS, user_ids=users) as other:
        values = other.user("user_tenure_days", [(u, now_us) for u in users])
        last = other.interactions([(u, now_us + DAY_US) for u in users])
    known = [(u, v) for u, v in zip(users, values, strict=True) if v is not None]
    result = found(offline, "user_tenure_days", logged([u for u, _ in known], [v for _, v in known], now_us))
    assert (result.verdict, result.kind) == ("breach", "time")
    assert f"{-hours:+g} h" in result.why
    rows = logged(users, last, now_us + DAY_US)
    truth = offline.interactions([(u, now_us + DAY_US) for u in users])
    interactions = compare_interactions(LAST_10, rows, truth, {}, limit=LIMIT)
    assert (interactions.verdict, interactions.kind) == ("breach", "time")
    assert f"{hours:+g} h" in interactions.why


def test_a_value_that_outlived_its_time_is_staleness(offline, users, now_us):
    old = offline.user("user_positives_total", [(u, now_us - 5 * DAY_US) for u in users])
    known = [(u, v) for u, v in zip(users, old, strict=True) if v is not None]
    rows = logged([u for u, _ in known], [v for _, v in known], now_us, age_s=5 * 86_400.0)
    result = found(offline, "user_positives_total", rows)
    assert (result.verdict, result.kind) == ("breach", "staleness")
    assert "120.0 h old, it lives 48 h" in result.why


def test_a_value_that_is_older_than_its_stamp_claims_is_staleness(offline, users, now_us):
    old = offline.user("user_tenure_days", [(u, now_us - 3 * DAY_US) for u in users])
    known = [(u, v) for u, v in zip(users, old, strict=True) if v is not None]
    result = found(offline, "user_tenure_days", logged([u for u, _ in known], [v for _, v in known], now_us))
    assert (result.verdict, result.kind) == ("breach", "staleness")
    assert "3 days before its stamp" in result.why


def test_a_batch_value_of_yesterday_is_what_was_agreed_and_is_counted(offline, users, now_us):
    at = now_us - DAY_US
    old = offline.user("user_positives_total", [(u, at) for u in users])
    known = [(u, v) for u, v in zip(users, old, strict=True) if v is not None]
    result = found(
        offline,
        "user_positives_total",
        logged([u for u, _ in known], [v for _, v in known], now_us, age_s=86_400.0),
    )
    assert (result.verdict, result.different) == ("ok", 0)
    assert result.aged > 0


@pytest.mark.parametrize(("age_s", "kind"), [(None, "missing"), (200_000.0, "staleness")])
def test_a_default_is_missing_or_stale_by_whether_there_had_been_a_value(offline, users, now_us, age_s, kind):
    default = REGISTRY["user_positives_30d"].default
    rows = logged(users, [default] * len(users), now_us, age_s=age_s, source="default")
    result = found(offline, "user_positives_30d", rows)
    assert (result.verdict, result.kind) == ("breach", kind)


def test_the_default_of_somebody_without_a_past_is_no_skew(offline, now_us):
    nobody = [f"nobody-{n}" for n in range(20)]
    rows = logged(nobody, [0.0] * 20, now_us, age_s=None, source="default")
    assert found(offline, "user_positives_30d", rows).verdict == "ok"


def test_one_row_is_too_few_to_say(offline, users, now_us):
    result = found(offline, "user_positives_30d", logged(users[:1], [123.0], now_us))
    assert result.verdict == "inconclusive"
    assert "1 values" in result.why


def test_only_the_rows_that_differ_are_named(offline, users, now_us):
    values = offline.user("user_tenure_days", [(u, now_us) for u in users])
    broken = [v + 0.123 if n in (3, 17) else v for n, v in enumerate(values)]
    result = found(offline, "user_tenure_days", logged(users, broken, now_us))
    assert result.different == 2
    assert [row["request_id"] for row in result.examples] == ["r3", "r17"]


def test_items_too(data, now_us):
    with open_log(data) as log:
        ids = log.item_ids()
    with open_offline(data, NO_EVENTS, item_ids=ids) as opened:
        look = OncePerPair(opened)
        truth = np.array(look("item_pop_7d", [(i, now_us) for i in ids]))

        def of(name, values, **changes):
            rows = [replace(row, **changes) for row in logged(ids, list(values), now_us)]
            return compare_feature(REGISTRY[name], rows, lambda p: look(name, list(p)), limit=LIMIT, at_stamp=True)

        assert of("item_pop_7d", truth).verdict == "ok"
        other = look("item_pop_14d", [(i, now_us) for i in ids])
        assert (of("item_pop_7d", other).verdict, of("item_pop_7d", other).kind) == ("breach", "code")
        shifted = look("item_pop_7d", [(i, now_us - 2 * HOUR_US) for i in ids])
        assert (of("item_pop_7d", shifted).kind, "-2 h" in of("item_pop_7d", shifted).why) == ("time", True)
        old = look("item_pop_7d", [(i, now_us - 7 * DAY_US) for i in ids])
        assert of("item_pop_7d", old).kind == "staleness"
        honest = look("item_pop_7d", [(i, now_us - 2 * DAY_US) for i in ids])
        assert of("item_pop_7d", honest, age_s=2 * 86_400.0).kind == "staleness"  # item features live for a day
        defaults = of("item_pop_7d", [0.0] * len(ids), age_s=None, source="default")
        assert (defaults.verdict, defaults.kind) == ("breach", "missing")


# --- interactions ----------------------------------------------------------------------------------------------------


def lines(n, first_us=0):
    return [f"i{k}\tclick\t{first_us + k * HOUR_US}" for k in reversed(range(n))]


def rows_of(values, at_us, **changes):
    return [replace(Logged(f"r{n}", f"u{n}", at_us, v, 0.0, "store"), **changes) for n, v in enumerate(values)]


@pytest.mark.parametrize(
    ("logged_lines", "kind"),
    [
        ([], "missing"),
        (lines(10)[3:], "staleness"),
        (
            [line.rsplit("\t", 1)[0] + f"\t{int(line.rsplit(chr(9), 1)[1]) + 7_200_000_000}" for line in lines(10)],
            "time",
        ),
        (list(reversed(lines(10))), "code"),
    ],
)
def test_interactions_that_differ_have_a_kind(logged_lines, kind):
    at = 100 * HOUR_US
    changes = {"age_s": None, "source": "default"} if not logged_lines else {}
    result = compare_interactions(
        LAST_10, rows_of([logged_lines] * 20, at, **changes), [lines(10)] * 20, {}, limit=LIMIT
    )
    assert (result.verdict, result.kind, result.different) == ("breach", kind, 20)


def test_what_came_within_the_last_minute_or_after_the_answer_is_not_held_against_it():
    at, truth = 100 * HOUR_US, lines(10)
    served = truth[2:]  # the newest two had not been received, or just
    received = {truth[0]: at + HOUR_US, truth[1]: at - 10_000_000}
    result = compare_interactions(LAST_10, rows_of([served] * 20, at), [truth] * 20, received, limit=LIMIT)
    assert (result.verdict, result.different, result.aged) == ("ok", 0, 20)
    earlier = dict.fromkeys(truth[:2], at - 2 * HOUR_US)
    late = compare_interactions(LAST_10, rows_of([served] * 20, at), [truth] * 20, earlier, limit=LIMIT)
    assert (late.verdict, late.kind) == ("breach", "staleness")
    assert "newest 2" in late.why


# --- labels ----------------------------------------------------------------------------------------------------------

TRAINING = DatasetConfig(name="t", positives=(Positive(event="click"), Positive(event="purchase", weight=2.0)))


def events(*kinds):
    rows = [
        {"event_id": f"e{n}", "user_id": "u", "item_id": f"i{n}", "event": kind, "timestamp_us": n, "value": value}
        for n, (kind, value) in enumerate(kinds)
    ]
    return pa.Table.from_pylist(rows, schema=pa.schema([EVENTS_ARROW.field(name) for name in rows[0]]))


def test_labels_by_another_definition_are_label():
    serving = DatasetConfig(name="s", positives=(Positive(event="purchase", weight=2.0),))
    happened = events(*[("click", None)] * 12, *[("purchase", None)] * 12)
    result = compare_labels(happened, TRAINING, serving, limit=LIMIT)
    assert (result.verdict, result.kind, result.different) == ("breach", "label", 12)
    assert "`click` weighs 0 where it is served and 1 where it was learned" in result.why
    assert compare_labels(happened, TRAINING, TRAINING, limit=LIMIT).verdict == "ok"


def test_a_threshold_of_a_rating_is_part_of_the_definition():
    training = DatasetConfig(name="t", positives=(Positive(event="rating", min_value=4.0),))
    serving = DatasetConfig(name="s", positives=(Positive(event="rating", min_value=3.0),))
    result = compare_labels(events(*[("rating", 3.5)] * 10, *[("rating", 4.5)] * 10), training, serving, limit=LIMIT)
    assert (result.kind, result.different) == ("label", 10)
    assert "`rating` of 3.5" in result.why


def test_joined_labels_that_are_not_the_definitions_are_named():
    joined = [(f"r{n}", f"i{n}", 1) for n in range(20)]
    result = compare_joined(joined, [1] * 15 + [0] * 5, limit=LIMIT)
    assert (result.verdict, result.kind, result.different) == ("breach", "label", 5)
    assert result.examples[0]["request_id"] == "r15"


def test_own_events_go_on_where_the_data_set_ends(data, users, now_us):
    with open_log(data) as log:
        item = log.item_ids()[0]
    after = now_us + HOUR_US
    own = pa.Table.from_pylist(
        [
            {
                "event_id": f"e{at}", "user_id": users[0], "item_id": item, "event": "click", "timestamp_us": at,
                "received_us": at, "request_id": None, "position": None, "value": None, "context": [], "schema": 1,
            }
            for at in (now_us - DAY_US, after)
        ],
        schema=EVENTS_ARROW,
    )  # fmt: skip
    with open_offline(data, own, user_ids=users) as opened, open_offline(data, NO_EVENTS, user_ids=users) as plain:
        pair = [(users[0], after + 1)]
        name = "user_positives_total"
        assert opened.user(name, pair)[0] == plain.user(name, pair)[0] + 1  # what the data set may have is not doubled
        assert opened.interactions(pair)[0][0] == f"{item}\tclick\t{after}"
    assert pc.sum(own["timestamp_us"]).as_py() > 0
