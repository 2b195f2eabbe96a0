"""The name of an answer, whatever ordered it."""

import pytest

from bentos.recommender.slates import rung
from contracts.serving import RANKERS, RankedBy


@pytest.mark.parametrize("ranker", RANKERS)
def test_an_answer_that_the_bundles_ranker_ordered_is_full_or_of_stale_features(ranker: RankedBy) -> None:
    assert rung(ranker, ()) == "full"
    assert rung(ranker, ("user_tenure_days",)) == "stale_features"
