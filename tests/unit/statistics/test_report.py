"""An experiment's report judges by its frozen plan: its primary metric, its split, its shares of α."""

import pytest

from contracts.routing import ExperimentRoute, Overrides
from monitoring.experiments.report import report
from monitoring.statistics.always_valid import compare
from monitoring.statistics.estimates import Estimate
from monitoring.statistics.samples import Ratio
from registry.experiments import Experiment, Plan
from registry.releases.policy import Metric


def experiment(split: float = 0.5) -> Experiment:
    plan = Plan(
        route=ExperimentRoute(id="a", treatment=Overrides(sources_off=("trending",)), split=split),
        hypothesis="clicks go up",
        metrics=(
            Metric(name="errors", kind="error_rate", direction="lower", weight=3),
            Metric(name="ctr", kind="ctr", direction="higher", role="primary"),
            Metric(name="empty", kind="empty", direction="lower"),
        ),
    )
    return Experiment(plan=plan, sha256=plan.sha256, created_us=0, actor="me")


def clicks(n: int, rate: float) -> Ratio:
    """n users with ten impressions each; clicks as Poisson ones."""
    x = 10 * n * rate
    return Ratio(n, x, 10 * n, x + x * x / n, 100 * n, 10 * x, int(n * 0.3))


SUMS = {
    ("ctr", "control"): clicks(9000, 0.05),
    ("ctr", "treatment"): clicks(9000, 0.06),
    ("errors", "control"): clicks(9500, 0.02),
    ("errors", "treatment"): clicks(9500, 0.05),
    ("empty", "control"): Ratio(9500, 0, 9500, 0, 9500, 0, 0),
    ("empty", "treatment"): Ratio(9500, 0, 9500, 0, 9500, 0, 0),
}


def test_the_primary_metric_is_the_document_s_and_each_has_its_own() -> None:
    found = report(experiment(), lambda metric, arm: SUMS[metric, arm], lambda arm: 10_000)
    assert found["verdict"] == "pass"
    assert found["effect"] == pytest.approx(0.01)
    verdicts = {m["name"]: m["verdict"] for m in found["metrics"]}
    assert verdicts == {"errors": "fail", "ctr": "pass", "empty": "inconclusive"}
    alphas = {m["name"]: m["alpha"] for m in found["metrics"]}
    assert alphas == pytest.approx({"errors": 0.0375, "ctr": 0.05, "empty": 0.0125})


def test_the_sample_ratio_is_that_of_all_units_and_of_the_plan_s_split() -> None:
    """The metric has as many users in both arms; the arms themselves do not fit 50:50, and do fit 40:60."""
    units = {"control": 8000, "treatment": 12_000}
    assert report(experiment(), lambda m, a: SUMS[m, a], units.__getitem__)["verdict"] == "inconclusive"
    assert report(experiment(split=0.6), lambda m, a: SUMS[m, a], units.__getitem__)["verdict"] == "pass"


def test_no_event_in_either_arm_still_has_an_interval() -> None:
    """Zero of 9,500 users and zero of 9,500: nothing is known to differ, and by how little is known."""
    found = compare(SUMS["empty", "control"], SUMS["empty", "treatment"])
    assert isinstance(found, Estimate)
    assert found.on_off
    assert found.ci[0] < 0 < found.ci[1] < 0.002
