"""Counting aside: the same text as prometheus_client's own counting, and nothing lost between two flushes."""

import numpy as np
import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics, generate_latest

from bentos.recommender.metrics import SECONDS, Metrics
from bentos.recommender.tally import Counts, Level, Times


@pytest.fixture(autouse=True)
def no_created():
    disable_created_metrics()


def test_a_tallied_histogram_is_the_one_that_prometheus_client_makes():
    rng = np.random.default_rng(1)
    seconds = [*SECONDS, 0.0, 99.0, *rng.lognormal(-5, 2, 500).tolist()]  # bounds are inclusive
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    times = Times(Histogram("s", "", ("stage",), buckets=SECONDS, registry=ours), SECONDS)
    wanted = Histogram("s", "", ("stage",), buckets=SECONDS, registry=theirs)
    for i, second in enumerate(seconds):
        times.observe("rank", second)
        wanted.labels("rank").observe(second)
        if i % 100 == 0:
            times.flush()
    times.flush()

    def lines(registry):
        return [line for line in generate_latest(registry).decode().splitlines() if "_sum" not in line]

    assert lines(ours) == lines(theirs)
    key = "s_sum", {"stage": "rank"}
    assert ours.get_sample_value(*key) == pytest.approx(theirs.get_sample_value(*key))


def test_counts_and_levels_are_told_once():
    registry = CollectorRegistry()
    counts = Counts(Counter("c", "", ("route", "status"), registry=registry))
    level = Level(Gauge("g", "", registry=registry))
    for _ in range(3):
        counts.add("/v1", "200")
    counts.add("/v1", "429", n=2)
    level.set(7)
    for _ in range(2):  # a second flush adds nothing
        counts.flush()
        level.flush()
    assert registry.get_sample_value("c_total", {"route": "/v1", "status": "200"}) == 3
    assert registry.get_sample_value("c_total", {"route": "/v1", "status": "429"}) == 2
    assert registry.get_sample_value("g") == 7


def test_a_scrape_sees_every_answer_before_it():
    metrics = Metrics()
    for _ in range(5):
        metrics.served("full", "dcn", 0.004, {"rank": 2.0}, ("user_tenure_days",))
    text = metrics.render().decode()
    assert 'streamrec_recommendations_total{degradation="full",ranked_by="dcn"} 5.0' in text
    assert 'streamrec_recommendation_seconds_count{degradation="full"} 5.0' in text
    assert 'streamrec_recommendation_seconds_count{degradation="popularity"} 0.0' in text
    assert 'streamrec_stage_seconds_bucket{le="0.002",stage="rank"} 5.0' in text
    assert 'streamrec_stale_features_total{feature="user_tenure_days"} 5.0' in text
