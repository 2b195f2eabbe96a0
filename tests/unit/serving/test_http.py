import asyncio

import pytest

from bentos.recommender.http import DISCARD_BYTES, ClientGone, HttpProblem, from_error, read_body
from contracts import errors


def receiving(*messages):
    queue = list(messages)

    async def receive():
        return queue.pop(0)

    return receive


def chunk(body, more=True):
    return {"type": "http.request", "body": body, "more_body": more}


def read(messages, headers=(), limit=10):
    return asyncio.run(read_body({"headers": list(headers)}, receiving(*messages), limit))


def test_chunks_are_joined():
    assert read([chunk(b"ab"), chunk(b""), chunk(b"cd", more=False)]) == b"abcd"


def test_a_body_may_have_exactly_the_limit():
    assert read([chunk(b"0123456789", more=False)]) == b"0123456789"


def test_a_declared_length_over_the_limit_is_refused_after_the_body_was_read_away():
    with pytest.raises(HttpProblem) as refused:
        read([chunk(b"a"), chunk(b"b", more=False)], headers=[(b"content-length", b"11")])
    assert refused.value.status == 413
    assert refused.value.headers == []  # the connection is clean: it stays open


def test_chunks_over_the_limit_are_refused_without_a_declared_length():
    with pytest.raises(HttpProblem) as refused:
        read([chunk(b"01234"), chunk(b"56789"), chunk(b"x", more=False)])
    assert refused.value.status == 413


def test_a_body_without_end_is_cut_off_with_its_connection():
    with pytest.raises(HttpProblem) as refused:
        read([chunk(b"0" * (1 << 20))] * (DISCARD_BYTES // (1 << 20) + 1))
    assert refused.value.status == 413
    assert refused.value.headers == [(b"connection", b"close")]


def test_a_client_that_leaves_in_the_middle_is_not_an_error():
    with pytest.raises(ClientGone):
        read([chunk(b"ab"), {"type": "http.disconnect"}])


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (errors.BadRequest("no", field="k"), 400),
        (errors.NotFound("no"), 404),
        (errors.Overloaded("no", retry_after_s=3), 429),
        (errors.Unreachable("a path of the machine"), 503),
        (errors.ArtifactError("a path of the machine"), 500),
    ],
)
def test_each_of_our_errors_has_a_status(error, status):
    problem = from_error(error)
    assert problem.status == status
    assert problem.field == getattr(error, "field", None)
    assert dict(problem.headers).get(b"retry-after") == {429: b"3", 503: b"1"}.get(status)
    assert status < 500 or "path" not in problem.detail  # what is inside stays inside
