import json

import pytest

from monitoring.signals import Signal, signal_of, worst

OK = Signal("drift.input.price", "streamrec-ranking/7", "ok", at=5, value=0.01, threshold=0.2, details={"n": 3})
UNKNOWN = Signal("drift.input.age", "streamrec-ranking/7", "inconclusive", at=5, cause="the window is empty")
BREACH = Signal("level.availability", "", "breach", at=5, value=14.4, threshold=1.0, since=2)


def test_a_signal_survives_json_and_a_key_of_a_newer_version():
    row = json.loads(json.dumps(OK.as_json())) | {"unknown": 1}
    assert signal_of(row) == OK


def test_the_family_is_the_first_part_of_the_name():
    assert [s.family for s in (OK, BREACH)] == ["drift", "level"]


def test_an_inconclusive_signal_says_why():
    with pytest.raises(ValueError, match="says why"):
        Signal("drift.input.age", "m", "inconclusive", at=5)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_figure_that_is_none_is_refused(value):
    with pytest.raises(ValueError, match="no figure"):
        Signal("drift.input.age", "m", "ok", at=5, value=value)


def test_a_breach_is_worst_and_nothing_at_all_is_inconclusive():
    assert worst([OK, UNKNOWN, BREACH]) == "breach"
    assert worst([OK, UNKNOWN]) == "inconclusive"
    assert worst([OK]) == "ok"
    assert worst([]) == "inconclusive"
