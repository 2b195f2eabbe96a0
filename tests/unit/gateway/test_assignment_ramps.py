"""100,000 users through ramps, layers and holdouts. Bounds: 3 standard deviations of a binomial; χ² by SciPy."""

import math

import numpy as np
import numpy.typing as npt
import pytest
from scipy.stats import chi2_contingency

from bentos.gateway.assignment import Assigner
from bentos.gateway.hashing import experiment_arms, gbhash_many, holdout_seed, release_arms
from contracts.routing import ExperimentRoute, Holdout, Overrides
from tests.unit.gateway.routed import release, table

USERS = [f"u{i}" for i in range(100_000)]
RAMP = (1, 5, 25, 50, 100)


@pytest.mark.parametrize("id_", ["r-1", "r-20260102T030405-1a2b3c", "a"])
def test_ramps_from_1_to_100_move_nobody_back(id_: str) -> None:
    before = np.full(len(USERS), "champion", dtype="U9")
    for weight in RAMP:
        arms = release_arms(release(id=id_, weight=weight), USERS)
        assert (arms[before == "candidate"] == "candidate").all()  # nobody returns
        if weight < 100:
            assert (arms[before == "control"] == "control").all()  # it moves once, at 100
        before = arms
    assert (before == "candidate").all()


@pytest.mark.parametrize("weight", RAMP[:-1])
def test_the_shares_of_both_arms_are_within_3_sigma(weight: int) -> None:
    arms = release_arms(release(weight=weight), USERS)
    p, n = weight / 100, len(USERS)
    for arm in ("candidate", "control"):
        assert abs((arms == arm).sum() - n * p) <= 3 * math.sqrt(n * p * (1 - p))


@pytest.mark.parametrize("split", [0.1, 0.3, 0.8])
def test_an_uneven_split_has_its_shares(split: float) -> None:
    arms = release_arms(release(weight=split * 100, split=split), USERS)
    n = len(USERS)
    assert abs((arms == "candidate").sum() - n * split) <= 3 * math.sqrt(n * split * (1 - split))
    assert (arms != "champion").all()


def test_the_gateway_assigns_as_the_analysis_does() -> None:
    route = release(weight=25)
    assigner = Assigner(table(release=route))
    some = USERS[:5000]
    assert [assigner.assign(u, {}).variant for u in some] == release_arms(route, some).tolist()


def test_the_gateway_assigns_experiments_as_the_analysis_does() -> None:
    experiment = ExperimentRoute(
        id="e", treatment=Overrides(sources_off=("graph",)), coverage=0.6, split=0.3, layer="l", slot=(0.2, 0.9)
    )
    assigner = Assigner(table(experiments=(experiment,)))
    some = USERS[:5000]
    got = [assigner.assign(u, {}).experiments.get("e", "") for u in some]
    assert got == experiment_arms(experiment, some).tolist()
    assert set(got) == {"treatment", "control", ""}


def two_by_two(first: npt.NDArray[np.bool_], second: npt.NDArray[np.bool_]) -> float:
    counts = [[((first == a) & (second == b)).sum() for b in (0, 1)] for a in (0, 1)]
    return float(chi2_contingency(counts, correction=False).pvalue)


@pytest.mark.parametrize(("one", "other"), [("e-1", "e-2"), ("exp1", "exp11"), ("r-1", "layer:default"), ("a", "b")])
def test_two_experiments_are_independent(one: str, other: str) -> None:
    first, second = (gbhash_many(seed, USERS) < 0.5 for seed in (one, other))
    assert two_by_two(first, second) > 0.001


def test_two_layers_are_independent() -> None:
    off = Overrides(sources_off=("graph",))
    arms = [
        experiment_arms(ExperimentRoute(id=f"e-{layer}", treatment=off, layer=layer, slot=(0, 0.5)), USERS)
        for layer in ("ranking", "retrieval")
    ]
    inside = [a != "" for a in arms]
    assert two_by_two(*inside) > 0.001
    both = inside[0] & inside[1]
    assert two_by_two(*(a[both] == "treatment" for a in arms)) > 0.001


def test_a_layer_with_an_experiments_name_does_not_decide_its_arms() -> None:
    arms = experiment_arms(
        ExperimentRoute(id="same", treatment=Overrides(sources_off=("graph",)), layer="same", slot=(0, 0.5)), USERS
    )
    counts = [(arms == a).sum() for a in ("treatment", "control")]
    assert abs(counts[0] - counts[1]) <= 3 * math.sqrt(sum(counts))


def test_experiments_of_one_layer_share_no_unit() -> None:
    off = Overrides(sources_off=("graph",))
    slots = ((0.0, 0.3), (0.3, 0.6), (0.6, 1.0))
    arms = [
        experiment_arms(ExperimentRoute(id=f"e-{i}", treatment=off, layer="one", slot=slot), USERS)
        for i, slot in enumerate(slots)
    ]
    inside = sum((a != "").astype(int) for a in arms)
    assert (inside == 1).all()  # these slots leave nobody out, and nobody is in two


def test_a_holdout_keeps_its_share_from_the_release_until_it_is_at_100() -> None:
    some = USERS[:20_000]
    held = gbhash_many(holdout_seed("h"), some) < 0.1
    assert abs(held.sum() - 2000) <= 3 * math.sqrt(1800)
    off = Overrides(sources_off=("graph",))
    parts = {
        "holdouts": (Holdout(id="h", share=0.1),),
        "experiments": (ExperimentRoute(id="e", treatment=off),),
    }
    below = Assigner(table(release=release(weight=50, shadow=10), **parts))
    whole = Assigner(table(release=release(weight=100), **parts))
    for user, is_held in zip(some, held, strict=True):
        assigned = below.assign(user, {})
        assert (assigned.variant == "champion") is bool(is_held)
        assert bool(assigned.experiments) is not bool(is_held)
        assert assigned.shadow_eligible is not bool(is_held)
        assert assigned.probability == (1.0 if is_held else 0.5)
        everyone = whole.assign(user, {})
        assert everyone.variant == "candidate"
        assert ("e" in everyone.experiments) is not bool(is_held)
