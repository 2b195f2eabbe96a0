"""Planted leaks in the ranker's rows: a column that knows the answer, a fit that saw what it is judged on."""

from dataclasses import replace

import numpy as np
import pytest

from contracts.serving import Ranker
from tests.unit.leakage.leaky_rows import FREE, SCHEMA, honest_rows
from training.leakage.shuffled import rankers_again, shuffled_labels
from training.leakage.single_feature import no_feature_too_good
from training.models.dcn_v2 import DcnConfig, RankingRows
from training.models.trees import TreesConfig
from training.ranking import hold_out_people


def drawn_labels(rows: RankingRows) -> RankingRows:
    return replace(rows, labels=np.random.default_rng(0).permutation(rows.labels))


QUICK = DcnConfig(cross_layers=1, hidden=(8,), epochs=1, min_steps=5)


def test_honest_rows_have_no_column_that_is_too_good() -> None:
    check = no_feature_too_good(honest_rows(), SCHEMA, seed=0)
    assert check.verdict == "pass"
    assert 0.6 < check.figures["best_single_auc"] < 0.85


def test_a_label_that_slipped_into_a_column_is_named() -> None:
    rows = honest_rows()
    noise = np.random.default_rng(1).standard_normal(len(rows.labels)) * 0.1
    rows.rows[:, SCHEMA.at(FREE)] = rows.labels + noise
    check = no_feature_too_good(rows, SCHEMA, seed=0)
    assert check.verdict == "fail"
    assert FREE in check.detail


def test_a_category_that_stands_for_the_label_is_named() -> None:
    rows = honest_rows()
    rows.rows[:, SCHEMA.at("creator")] = np.where(rows.labels > 0, 5, 1)
    check = no_feature_too_good(rows, SCHEMA, seed=0)
    assert check.verdict == "fail"
    assert "creator" in check.detail


def test_too_few_positives_leave_it_open() -> None:
    rows = honest_rows(users=2, each=10)
    assert no_feature_too_good(rows, SCHEMA, seed=0).verdict == "inconclusive"
    assert shuffled_labels(rows, {}, seed=0).verdict == "inconclusive"


@pytest.mark.parametrize("ranker", ["dcn", "trees"])
def test_both_rankers_fall_to_chance_on_labels_that_were_drawn(ranker: Ranker) -> None:
    again = rankers_again(SCHEMA, ranker, QUICK, TreesConfig(), 0)
    assert sorted(again) == sorted([ranker, "logistic"])
    check = shuffled_labels(drawn_labels(honest_rows(users=600)), again, seed=0)
    assert check.verdict == "pass", check.detail
    assert all(abs(value - 0.5) < 0.05 for value in check.figures.values())


def test_a_fit_that_encodes_the_labels_of_all_rows_does_not_fall_to_chance() -> None:
    """The classic: an encoding of ids by their mean label, made before the split."""

    def encoded_before_the_split(learn: RankingRows, judge: RankingRows) -> np.ndarray:
        ids = np.arange(len(judge.labels)) // 2  # ids that come twice
        rate = np.bincount(ids, judge.labels) / np.bincount(ids)
        return rate[ids]

    check = shuffled_labels(drawn_labels(honest_rows()), {"leaky": encoded_before_the_split}, seed=0)
    assert check.verdict == "fail"
    assert check.figures["leaky_shuffled_auc"] > 0.8


def test_a_person_is_held_out_at_every_moment_or_at_none() -> None:
    twice = [honest_rows(users=50, each=3), honest_rows(users=50, each=3, seed=1)]
    held_out, learned, _ = hold_out_people(twice, 0.2, seed=3)
    assert len(set(held_out.user_ids)) == 10
    assert held_out.n_users == 20
    assert not set(held_out.user_ids) & set(learned.user_ids)
