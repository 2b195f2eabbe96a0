"""Floors, corrections and verdicts: what stands between a number and an alert."""

import math
from typing import ClassVar

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import false_discovery_control

from monitoring.drift.base import CannotJudge, Columns, Detector, Engine, Finding, Result, inconclusive
from monitoring.drift.correction import correct, overall
from monitoring.statistics.multiplicity import adjusted


class Said(Detector):
    """Answers with the finding it was given."""

    name = "said"
    takes: ClassVar[tuple[str, ...]] = ("values",)
    floor = 0.1

    def __init__(self, finding: Finding | None) -> None:
        self.finding = finding

    def compare(self, reference: Columns, current: Columns, *, engine: Engine, seed: int) -> Finding:
        if self.finding is None:
            raise CannotJudge("no reason to")
        return self.finding


ROWS = {"values": np.zeros(50)}
ENGINE: Engine = None  # type: ignore[assignment]  # `Said` does not ask it


@pytest.mark.parametrize(
    ("p", "effect", "drift"),
    [(0.01, 0.2, "drift"), (0.01, 0.05, "none"), (0.2, 0.2, "none"), (None, 0.2, "drift"), (math.nan, 0.2, None)],
)
def test_drift_needs_significance_and_an_effect(p: float | None, effect: float, drift: str | None) -> None:
    found = Said(Finding(1.0, p, effect))(ROWS, ROWS, engine=ENGINE)
    assert found.drift == (drift or "inconclusive")


@pytest.mark.parametrize(
    ("reference", "current", "why"),
    [
        ({}, ROWS, "no values"),
        (ROWS, {"values": np.zeros(0)}, "the current is empty"),
        (ROWS, {"values": np.zeros(1)}, "1 row in the current"),
    ],
)
def test_what_cannot_be_judged_is_inconclusive_and_says_why(reference: Columns, current: Columns, why: str) -> None:
    found = Said(Finding(1.0, 0.0, 1.0))(reference, current, engine=ENGINE)
    assert (found.drift, found.p) == ("inconclusive", None)
    assert why in found.why


def test_a_reason_is_a_verdict() -> None:
    assert Said(None)(ROWS, ROWS, engine=ENGINE).why == "no reason to"


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_adjusted_p_values_are_scipys(p: list[float]) -> None:
    ours = adjusted(dict(enumerate(p)))
    assert [ours[i] for i in range(len(p))] == pytest.approx(list(false_discovery_control(p)))


def result(p: float | None, drift: str = "drift") -> Result:
    return Result("t", 1.0, p, 0.1, drift, effect=0.5)  # type: ignore[arg-type]


def test_a_correction_takes_back_what_only_chance_explains() -> None:
    judged = correct({i: result(0.04) if i == 0 else result(0.5, "none") for i in range(10)})
    assert {r.drift for r in judged.values()} == {"none"}
    assert judged[0].p_adjusted == pytest.approx(0.4)


def test_a_verdict_without_a_p_stands_as_it_was() -> None:
    assert correct({"a": result(None)})["a"].drift == "drift"


def test_a_gap_is_never_none() -> None:
    gap = inconclusive("t", "empty")
    assert overall({}) == "inconclusive"
    assert overall({"a": result(0.5, "none"), "b": gap}) == "inconclusive"
    assert overall({"a": result(0.01), "b": gap}) == "drift"
    constant = inconclusive("t", "constant", weighs=False)
    assert overall({"a": result(0.5, "none"), "b": constant}) == "none"
    assert overall({"b": constant}) == "inconclusive"


def test_a_document_says_true_false_or_null() -> None:
    found = [r.document()["drift"] for r in (result(0.01), result(0.5, "none"), inconclusive("t", "empty"))]
    assert found == [True, False, None]
