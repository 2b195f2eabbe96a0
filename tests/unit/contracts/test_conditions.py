import re
import time
from typing import Any

import pytest
from pydantic import ValidationError

from contracts.conditions import MAX_TEXT, NUMBER, checked, guarded
from contracts.routing import Flag, Overrides, ReleaseRoute, Target
from registry.releases.policy import Policy

DEEP: dict[str, Any] = {"country": "DE"}
for _ in range(9):
    DEEP = {"$and": [DEEP]}


@pytest.mark.parametrize(
    ("condition", "words"),
    [
        ({"country": {"$equals": "DE"}}, "unknown operator `$equals`"),
        ({"$xor": [{"country": "DE"}]}, "unknown operator `$xor`"),
        ({"country": {"$inGroup": "g"}}, "unknown operator `$inGroup`"),
        ({"country": {"$eq": "DE", "name": "x"}}, "unknown operator `name`"),
        ({"country": {"$notRegexi": "^d"}}, '{"$not": {"$regexi": …}}'),
        ({"country": {"$regex": "("}}, "not a regular expression"),
        ({"country": {"$regex": "(a+)+$"}}, "repeat inside a repeat"),
        ({"country": {"$regex": "^(a|aa)+$"}}, "alternatives inside a repeat"),
        ({"country": {"$regex": "a*a*a*b"}}, "too many open repeats"),
        ({"country": {"$regex": "a?" * 30 + "a{30}"}}, "too many open repeats"),
        ({"country": {"$regex": r"(a)\1"}}, "back references"),
        ({"country": {"$regexi": 5}}, "takes one"),
        ({"app.version": "1"}, "without dots"),
        ({"": "1"}, "without dots"),
        ({"tenure": 30}, "context values are strings"),
        ({"tenure": {"$eq": 30}}, "context values are strings"),
        ({"tenure": {"$in": [30]}}, "context values are strings"),
        ({"tenure": {"$in": []}}, "list of 1 to"),
        ({"tenure": {"$in": "30"}}, "list of 1 to"),
        ({"tenure": {"$gt": "30"}}, "write 30 without quotes"),
        ({"tenure": {"$gt": True}}, "a number or a string"),
        ({"tenure": {"$gt": float("nan")}}, "a number or a string"),
        ({"tenure": {"$gt": float("inf")}}, "a number or a string"),
        ({"country": None}, "context values are strings"),
        ({"country": {}}, "compared with nothing"),
        ({"country": ["DE"]}, "context values are strings"),
        ({"country": {"$exists": "no"}}, "true or false"),
        ({"country": {"$exists": False, "$ne": "DE"}}, "stands alone"),
        ({"country": {"$not": {"$exists": True}}}, "for absence"),
        ({"country": {"$not": "DE"}}, "`$not` takes an object"),
        ({"$and": []}, "takes a list"),
        ({"$or": {"country": "DE"}}, "takes a list"),
        ({"$not": {}}, "a condition is an object"),
        ({"$not": "DE"}, "a condition is an object"),
        ({"country": "x" * (MAX_TEXT + 1)}, "at most 256"),
        (DEEP, "nested over"),
        ({"$and": [{"country": "DE"}] * 201}, "201 parts"),
    ],
)
def test_a_condition_that_could_not_work_is_refused_with_the_reason(condition: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=re.escape(words)):
        checked(condition)


@pytest.mark.parametrize(
    "condition",
    [
        {},
        {"country": "DE", "device": {"$in": ["phone", "tv"]}},
        {"tenure": {"$gt": 30, "$lte": 90.5}},
        {"joined": {"$gte": "2026-01-02"}},
        {"app_version": {"$vgte": "2.10.0"}},
        {"$or": [{"country": {"$exists": False}}, {"$not": {"country": {"$regexi": "^d[a-z]*$"}}}]},
        {"app": {"$regex": r"^v?[0-9]+\.[0-9]+\.[0-9]+$"}},
        {"app": {"$regex": "^(ios|android)-"}},
    ],
)
def test_a_sound_condition_is_taken_as_it_is(condition: dict[str, Any]) -> None:
    assert checked(condition) is condition


@pytest.mark.parametrize("pattern", [r"^v?[0-9]+[0-9]+[0-9]+x", "a+a+b", "[a-z]*$"])
def test_a_pattern_that_is_taken_is_quick_on_a_text_made_against_it(pattern: str) -> None:
    checked({"country": {"$regex": pattern}})
    for text in ("a" * MAX_TEXT, "1" * MAX_TEXT):
        began = time.process_time()
        re.search(pattern, text)
        assert time.process_time() - began < 1.0


def test_policies_releases_and_flags_refuse_a_bad_condition_when_they_are_made() -> None:
    bad = {"country": {"$like": "D%"}}
    with pytest.raises(ValidationError, match="unknown operator"):
        ReleaseRoute(id="r", step="s", candidate=Target(bento="b"), condition=bad)
    with pytest.raises(ValidationError, match="unknown operator"):
        Flag(id="f", on=Overrides(sources_off=("graph",)), condition=bad)
    with pytest.raises(ValidationError, match="unknown operator"):
        Policy.model_validate({"name": "p", "version": "1", "metrics": [], "steps": [], "condition": bad})


def test_what_a_condition_names_must_be_there() -> None:
    assert guarded({"$not": {"country": "DE"}}) == {
        "$and": [{"country": {"$exists": True}}, {"$not": {"country": "DE"}}]
    }
    assert guarded({"b": {"$not": {"$gt": 3}}, "a": "x"}) == {
        "$and": [
            {"a": {"$exists": True}},
            {"b": {"$exists": True, "$regex": NUMBER}},
            {"b": {"$not": {"$gt": 3}}, "a": "x"},
        ]
    }


def test_an_attribute_whose_absence_is_asked_for_is_demanded_at_each_other_use() -> None:
    condition = {"$or": [{"country": {"$exists": False}}, {"country": {"$ne": "DE"}, "plan": "free"}]}
    assert guarded(condition) == {
        "$and": [
            {"plan": {"$exists": True}},
            {
                "$and": [
                    {
                        "$or": [
                            {"$and": [{"country": {"$exists": False}}]},
                            {
                                "$and": [
                                    {"$and": [{"country": {"$exists": True}}, {"country": {"$ne": "DE"}}]},
                                    {"plan": "free"},
                                ]
                            },
                        ]
                    }
                ]
            },
        ]
    }


def test_no_condition_stays_none() -> None:
    assert guarded({}) == {}
