"""What every drift detector keeps to, on both engines. Without alibi-detect this suite fails; it does not skip."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from monitoring.drift.base import Columns, Engine, Result
from monitoring.drift.engines.choose import ENGINES
from monitoring.drift.registry import DETECTORS

N, M = 3_000, 1_000
World = Callable[[np.random.Generator, int, bool], dict[str, Any]]


def world(seed: int, rows: int, *, drifted: bool = False) -> dict[str, Any]:
    """Every role at once. Drifted: each in a way that each detector is for."""
    rng = np.random.default_rng(seed)
    segment = rng.integers(0, 4, rows)
    scores = rng.beta(2, 6, rows)
    likes = np.where(segment == 1, scores[::-1], scores) if drifted else scores
    items = np.minimum(rng.zipf(1.3 if drifted else 1.6, rows), 300) - 1
    turn = np.radians(20.0 if drifted else 0.0)
    table = np.random.default_rng(1).normal(size=(300, 8)) + 0.5
    turned = table.copy()
    turned[:, 0::2] = np.cos(turn) * table[:, 0::2] - np.sin(turn) * table[:, 1::2]
    turned[:, 1::2] = np.sin(turn) * table[:, 0::2] + np.cos(turn) * table[:, 1::2]
    drawn = rng.integers(0, 300, rows)
    shares = np.array([0.5, 0.3, 0.15, 0.05, 0.0])
    return {
        "values": rng.normal(0.6 if drifted else 0, 3 if drifted else 1, rows),
        "codes": rng.choice(5, rows, p=[0.3, 0.3, 0.2, 0.0, 0.2] if drifted else shares),
        "missing": rng.random(rows) < (0.06 if drifted else 0.02),
        "vectors": (turned[drawn] + (2 if drifted else 0)).astype(np.float32),
        "keys": drawn,
        "items": items,
        "sources": rng.random((rows, 3)) < np.array([0.6, 0.3, 0.2 if drifted else 0.1]),
        "positions": rng.integers(1, 6, rows),
        "scores": scores,
        "labels": (rng.random(rows) < likes * (1.5 if drifted else 1)).astype(np.float64),
        "slices": segment,
    }


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest) -> Engine:
    return ENGINES[request.param]()


@pytest.fixture(params=DETECTORS)
def ask(request: pytest.FixtureRequest, engine: Engine) -> Callable[..., Result]:
    detector = DETECTORS[request.param]

    def asked(reference: Columns, current: Columns, seed: int = 0) -> Result:
        found = detector(reference, current, engine=engine, seed=seed)
        assert found.test == request.param
        return found

    asked.takes = detector.takes  # type: ignore[attr-defined]
    return asked


@pytest.fixture(scope="module")
def reference() -> dict[str, Any]:
    return world(1, N)


def test_a_window_like_the_reference_has_not_drifted(ask: Callable[..., Result], reference: Columns) -> None:
    found = ask(reference, world(2, M))
    assert found.drift == "none", found
    assert found.p is None or found.p > 0.001
    assert found.n[0] > 0


def test_what_it_is_for_is_found(ask: Callable[..., Result], reference: Columns) -> None:
    found = ask(reference, world(2, M, drifted=True))
    assert found.drift == "drift", found
    assert found.effect is not None
    assert found.effect >= found.threshold


def test_the_same_question_has_the_same_answer(ask: Callable[..., Result], reference: Columns) -> None:
    window = world(2, M)
    assert ask(reference, window, seed=3) == ask(reference, window, seed=3)


@pytest.mark.parametrize("rows", [0, 1, 5])
def test_too_few_rows_on_either_side_are_inconclusive(
    ask: Callable[..., Result], reference: Columns, rows: int
) -> None:
    few = {role: column[:rows] for role, column in reference.items()}
    for found, side in ((ask(reference, few), "current"), (ask(few, reference), "reference")):
        assert (found.drift, found.p, found.statistic) == ("inconclusive", None, None)
        assert side in found.why


def test_a_role_that_is_not_there_is_inconclusive(ask: Callable[..., Result], reference: Columns) -> None:
    for role in ask.takes:  # type: ignore[attr-defined]
        found = ask(reference, {r: c for r, c in reference.items() if r != role})
        assert (found.drift, found.why) == ("inconclusive", f"the current has no {role}")


def test_columns_of_several_lengths_are_inconclusive(ask: Callable[..., Result], reference: Columns) -> None:
    *_, role = ask.takes  # type: ignore[attr-defined]
    if len(ask.takes) > 1:  # type: ignore[attr-defined]
        found = ask(reference, {**reference, role: reference[role][:-1]})
        assert "differ in length" in found.why


def nothing(role: str, column: Any) -> Any:
    if column.dtype.kind == "f":
        return np.full_like(column, np.nan)
    return np.full_like(column, -1) if role in ("codes", "slices", "positions") else column


def test_where_every_value_is_missing_it_is_no_verdict_of_none(ask: Callable[..., Result], reference: Columns) -> None:
    if not {"values", "codes", "vectors", "scores", "labels"} & set(ask.takes):  # type: ignore[attr-defined]
        return  # these roles have no way to say that a value is missing
    gone = {role: nothing(role, column) for role, column in reference.items()}
    assert ask(reference, gone).drift == "inconclusive"
    assert ask(gone, reference).drift == "inconclusive"


def test_both_engines_say_much_the_same() -> None:
    window = world(2, M)
    for name in ("ks", "cvm", "chi_square", "missing"):
        ours, theirs = (DETECTORS[name](world(1, N), window, engine=ENGINES[engine]()) for engine in ("scipy", "alibi"))
        assert (ours.statistic, ours.p) == pytest.approx((theirs.statistic, theirs.p), rel=1e-4)
