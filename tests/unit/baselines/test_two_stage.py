"""The boosted reference on a small made-up log in which what comes next can be learned, and on one where it cannot."""

import numpy as np
import pytest

from training.baselines import blend, rerank_features, two_stage
from training.baselines.past import Past
from training.interactions import DAY_US, Positives

DAYS = 240


def log(seed: int, n_users: int = 60, n_items: int = 80) -> Past:
    """Every user takes up an item every four days, mostly of the ten that are in season just then."""
    random = np.random.default_rng(seed)
    days = np.arange(0, DAYS, 4)
    user = np.repeat(np.arange(n_users), len(days))
    day = np.tile(days, n_users)
    season = (day // 30 * 10 + random.integers(0, 10, len(day))) % n_items
    item = np.where(random.random(len(day)) < 0.8, season, random.integers(0, n_items, len(day)))
    positives = Positives(
        DAYS * DAY_US,
        n_users,
        user.astype(np.int32),
        item.astype(np.int32),
        (day * DAY_US).astype(np.int64),
        np.ones(len(day), np.float32),
    )
    groups = (np.arange(n_items) // 10).astype(np.int32)
    return Past(positives, np.linspace(1, 9, n_items, dtype=np.float32), groups, np.full(n_items, -1, np.int32))


def test_windows_are_thirty_days_or_an_eighth_of_a_short_log() -> None:
    past = log(0)
    assert [(to - at) / DAY_US for at, to in two_stage.windows(past)] == [30, 30, 30, 30]
    assert two_stage.windows(past)[0][1] == past.until_us
    short = past.before(80 * DAY_US)
    assert [(to - at) / DAY_US for at, to in two_stage.windows(short)] == [10, 10, 10, 10]


def test_rows_at_a_moment_are_the_same_when_everything_after_it_is_deleted() -> None:
    whole = log(0)
    moment = 150 * DAY_US
    truncated = Past(whole.before(moment).positives, whole.price, whole.category, whole.creator)
    users, candidates = np.arange(5), np.tile(np.arange(20), (5, 1))
    rows = [
        rerank_features.rows(rerank_features.gather(blend.fit(past)), users, candidates)
        for past in (whole.before(moment), truncated.before(moment + DAY_US).before(moment))
    ]
    assert np.array_equal(rows[0], rows[1])
    assert rows[0].shape == (100, len(rerank_features.names(rerank_features.gather(blend.fit(truncated)))))
    assert np.isfinite(rows[0]).all()


def test_labels_are_never_read_by_the_features_of_their_own_moment() -> None:
    """Other events after the moment: other labels, the same rows."""
    past, moment = log(0), 150 * DAY_US
    other = log(1)
    late = other.positives.timestamp_us >= moment
    keep = past.positives.timestamp_us < moment
    columns = [
        np.concatenate([getattr(past.positives, name)[keep], getattr(other.positives, name)[late]])
        for name in ("user", "item", "timestamp_us", "weight")
    ]
    mixed = Past(Positives(past.until_us, 60, *columns), past.price, past.category, past.creator)
    users, candidates = np.arange(5), np.tile(np.arange(20), (5, 1))
    one, two = (
        rerank_features.rows(rerank_features.gather(blend.fit(p.before(moment))), users, candidates)
        for p in (past, mixed)
    )
    assert np.array_equal(one, two)


def test_it_learns_and_says_the_same_again_and_never_what_was_met() -> None:
    past = log(0).before(230 * DAY_US)
    first = blend.fit(past)
    fitted, again = (two_stage.fit(past, first=first, seed=3, max_rows=50_000) for _ in range(2))
    users = np.arange(20)
    lists = fitted.recommend(users)
    assert np.array_equal(lists, again.recommend(users))
    assert fitted.positives >= two_stage.MIN_POSITIVES
    for user, items in zip(users, lists, strict=True):
        shown = items[items >= 0]
        assert not set(shown) & set(first.met[user].indices)
        assert len(set(shown)) == len(shown) == past.n_items - first.met[user].nnz


def test_an_answer_for_one_user_is_the_answer_among_many() -> None:
    past = log(0).before(230 * DAY_US)
    fitted = two_stage.fit(past, first=blend.fit(past), seed=3, max_rows=20_000)
    assert np.array_equal(fitted.recommend(np.array([7])), fitted.recommend(np.arange(20))[[7]])


def test_hardly_any_rows_are_too_little_to_learn_an_order_from() -> None:
    past = log(0, n_users=2)
    with pytest.raises(two_stage.TooLittle, match="too few"):
        two_stage.fit(past, first=blend.fit(past), seed=0, max_rows=1000)
