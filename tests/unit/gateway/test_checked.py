import msgspec
import pytest

from bentos.gateway.checked import Broken, checked

GOOD = {
    "request_id": "r1",
    "user_id": "u1",
    "items": [
        {"item_id": "a", "score": 0.5, "position": 1, "sources": []},
        {"item_id": "b", "score": 0.4, "position": 2, "sources": ["graph"]},
    ],
    "degradation": "full",
    "ranked_by": "dcn",
    "bento": "b:1",
    "versions": {"bento": "b:1", "retrieval": "r", "ranking": "k", "fallback": "f", "rules": "x"},
}


def body(**changes) -> bytes:
    return msgspec.json.encode(GOOD | changes)


def item(**changes) -> dict:
    return {"item_id": "a", "score": 0.5, "position": 1, "sources": []} | changes


def test_a_good_answer_passes():
    assert [i.item_id for i in checked(body(), "r1", "u1", 2).items] == ["a", "b"]
    assert checked(body(items=[]), "r1", "u1", 2).items == []


def test_a_bento_that_does_not_know_us_answers_under_its_own_id():
    assert checked(body(versions=None, request_id="its own"), "r1", "u1", 2).versions is None


@pytest.mark.parametrize(
    ("raw", "word"),
    [
        (b"", "schema"),
        (b"[]", "schema"),
        (b"\xff\xfe", "schema"),
        (b"[" * 100_000, "schema"),
        (body()[:-1], "schema"),
        (body(items=[item(score="high")]), "schema"),
        (body(items=[item(score=None)]), "schema"),
        (body(degradation="superb"), "schema"),
        (body(user_id="u2"), "another user"),
        (body(request_id="r2"), "another request"),
        (body(items=[item(), item(position=2)]), "twice"),
        (body(items=[item(position=0)]), "position"),
        (body(items=[item(position=2)]), "position"),
        (body(items=[item(item_id="")]), "item id"),
        (body(items=[item(item_id=f"i{n}", position=n + 1) for n in range(3)]), "asked for"),
        (body().replace(b"0.5", b"1e999"), "finite|schema"),
        (body().replace(b"0.5", b"NaN"), "schema"),
    ],
)
def test_what_breaks_the_contract_is_a_failure_of_the_variant(raw, word):
    with pytest.raises(Broken, match=word):
        checked(raw, "r1", "u1", 2)
