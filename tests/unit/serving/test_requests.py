import contextlib

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bentos.recommender.requests import decode
from contracts.errors import BadRequest

LONG = "x" * 257


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b"{}", "user_id"),
        (b'{"user_id": 7}', "user_id"),
        (b'{"user_id": ""}', "user_id"),
        (b'{"user_id": null}', "user_id"),
        (b'{"user_id": "a\\u0000b"}', "user_id"),
        (b'{"user_id": "u", "k": 0}', "k"),
        (b'{"user_id": "u", "k": -1}', "k"),
        (b'{"user_id": "u", "k": 1000000}', "k"),
        (b'{"user_id": "u", "k": 1e999}', "k"),
        (b'{"user_id": "u", "k": "20"}', "k"),
        (b'{"user_id": "u", "k": true}', "k"),
        (b'{"user_id": "u", "k": null}', "k"),
        (b'{"user_id": "u", "debug": 1}', "debug"),
        (b'{"user_id": "u", "exclude": "i1"}', "exclude"),
        (b'{"user_id": "u", "exclude": ["i1", 2]}', "exclude[1]"),
        (b'{"user_id": "u", "context": []}', "context"),
        (b'{"user_id": "u", "context": {"a": 1}}', "context[...]"),
        (b'{"user_id": "u", "context": {"%s": "a"}}' % LONG.encode(), "context"),
        (b'{"user_id": "u", "kk": 3}', "kk"),
    ],
)
def test_a_body_that_breaks_the_schema_names_the_field(body, field):
    with pytest.raises(BadRequest) as refused:
        decode(body)
    assert refused.value.field == field
    assert field in refused.value.message


@pytest.mark.parametrize(
    "body", [b"", b"nope", b"[]", b"null", b'"u"', b'{"user_id": "\xff"}', b'{"user_id": "\\ud800"}', b"[" * 100_000]
)
def test_what_is_not_a_json_object_is_refused_without_a_field(body):
    with pytest.raises(BadRequest) as refused:
        decode(body)
    assert refused.value.field is None


def test_ten_thousand_excludes_are_taken_and_one_more_is_not():
    body = {"user_id": "u", "exclude": [f"i{i}" for i in range(10_000)]}
    assert len(decode(msgspec.json.encode(body)).exclude) == 10_000
    body["exclude"].append("i")
    with pytest.raises(BadRequest) as refused:
        decode(msgspec.json.encode(body))
    assert refused.value.field == "exclude"


@given(st.binary(max_size=200))
def test_any_bytes_give_a_request_or_a_bad_request(body):
    with contextlib.suppress(BadRequest):
        decode(body)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)
NAMES = ("user_id", "k", "context", "exclude", "debug", "other")


@given(st.fixed_dictionaries({}, optional=dict.fromkeys(NAMES, JSON)))
def test_any_json_gives_a_valid_request_or_a_bad_request(document):
    with contextlib.suppress(BadRequest):
        request = decode(msgspec.json.encode(document))
        assert 1 <= request.k <= 500
        assert request.user_id == document["user_id"]
