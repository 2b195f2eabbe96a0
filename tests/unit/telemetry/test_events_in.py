import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bentos.telemetry.events_in import parse_events
from contracts.errors import BadRequest

NOW_US = 1_800_000_000_000_000  # 2027-01-15T08:00:00Z
GOOD = {"event_id": "e1", "user_id": "u1", "item_id": "i1", "event": "click", "timestamp": "2027-01-15T07:59:59Z"}


def body(*events: dict[str, Any]) -> bytes:
    return json.dumps(list(events)).encode()


def refused(data: bytes) -> str | None:
    with pytest.raises(BadRequest) as caught:
        parse_events(data, NOW_US)
    return caught.value.field


def test_an_array_an_object_with_events_and_a_single_event_are_the_same() -> None:
    array = parse_events(body(GOOD), NOW_US)
    assert array == parse_events(json.dumps({"events": [GOOD]}).encode(), NOW_US)
    assert array == parse_events(b" \n" + json.dumps(GOOD).encode(), NOW_US)
    assert array[0].timestamp_us == NOW_US - 1_000_000
    assert array[0].received_us == NOW_US


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("2027-01-15T08:00:00+00:00", 0),
        ("2027-01-15T10:00:00+02:00", 0),
        ("20270115T080000Z", 0),
        ("2027-01-15T08:04:59Z", 299),
    ],
)
def test_a_time_with_a_zone_is_read(text: str, seconds: int) -> None:
    assert parse_events(body(GOOD | {"timestamp": text}), NOW_US)[0].timestamp_us == NOW_US + seconds * 1_000_000


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"timestamp": "2027-01-15T08:00:00"}, "timestamp"),
        ({"timestamp": "2027-01-15"}, "timestamp"),
        ({"timestamp": "yesterday"}, "timestamp"),
        ({"timestamp": ""}, "timestamp"),
        ({"timestamp": "2027-01-15T08:05:01Z"}, "timestamp"),
        ({"timestamp": "1969-12-31T23:59:59Z"}, "timestamp"),
        ({"timestamp": "0001-01-01T00:00:00+23:59"}, "timestamp"),
        ({"timestamp": 1_800_000_000}, "timestamp"),
        ({"user_id": 7}, "user_id"),
        ({"user_id": ""}, "user_id"),
        ({"user_id": "x" * 257}, "user_id"),
        ({"item_id": "a\0b"}, "item_id"),
        ({"position": 0}, "position"),
        ({"position": 1.5}, "position"),
        ({"value": "1"}, "value"),
        ({"context": {"a": 1}}, "context[...]"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_the_message_names_the_field_of_the_event(change: dict[str, Any], field: str) -> None:
    assert refused(body(GOOD, GOOD, GOOD, GOOD | change)) == f"events[3].{field}"
    assert refused(json.dumps({"events": [GOOD, GOOD | change]}).encode()) == f"events[1].{field}"
    assert refused(json.dumps(GOOD | change).encode()) == f"events[0].{field}"


@pytest.mark.parametrize("missing", ["event_id", "user_id", "item_id", "event", "timestamp"])
def test_a_missing_field_is_named(missing: str) -> None:
    event = {k: v for k, v in GOOD.items() if k != missing}
    assert refused(body(GOOD, event)) == f"events[1].{missing}"
    assert refused(json.dumps(event).encode()) == f"events[0].{missing}"


def test_a_body_has_one_to_a_thousand_events() -> None:
    assert len(parse_events(body(*[GOOD] * 1_000), NOW_US)) == 1_000
    assert refused(body(*[GOOD] * 1_001)) == "events"
    assert refused(b"[]") == "events"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"null",
        b"7",
        b'"x"',
        b"[",
        b"\xff\xfe",
        b'[{"user_id": "\xff"}]',
        b'[{"value": NaN}]',
        b"[" * 50_000,
        b"PK\x03",
    ],
)
def test_what_is_no_list_of_events_is_a_bad_request(data: bytes) -> None:
    refused(data)


def test_a_number_past_the_range_of_floats_is_refused() -> None:
    text = json.dumps([GOOD])[:-2] + ', "value": 1e999}]'
    assert refused(text.encode()) == "events[0].value"


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*GOOD, "events", "x"]), inner, max_size=6)
    ),
    max_leaves=12,
)


@given(json_values.map(lambda value: json.dumps(value).encode()) | st.binary(max_size=60))
def test_any_body_gives_events_or_a_bad_request(data: bytes) -> None:
    try:
        events = parse_events(data, NOW_US)
    except BadRequest:
        return
    assert events
