"""The CTR task on made-up ratings in the layout of MovieLens 100k."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks import ctr

DRAMA, ACTION = 8, 1  # places among the 19 flags


def ratings(liked: list[int], users: list[str], items: list[str], at: list[int]) -> ctr.Ratings:
    words = {"user_id": np.array(users), "item_id": np.array(items)}
    n = len(liked)
    return ctr.Ratings(np.array(at), np.array(liked, np.int8), words, np.zeros((n, 0), bool), ())


def test_the_past_is_of_earlier_moments() -> None:
    found = ctr.past_of(ratings([1, 0, 1, 1, 1], ["a"] * 5, list("xyzvw"), [1, 2, 2, 3, 4]), learned_until=4)
    overall, prior = 0.75, ctr.PRIOR
    before = [(0, 0), (1, 1), (1, 1), (2, 3), (3, 4)]  # (liked, rated) of the user; two rows are of one moment
    shares = [(good + prior * overall) / (n + prior) for good, n in before]
    assert found[:, 0].tolist() == pytest.approx(shares)
    assert found[:, 1].tolist() == pytest.approx(np.log1p([n for _, n in before]).tolist())
    assert found[:, 2].tolist() == pytest.approx([overall] * 5)  # no item came twice


def test_an_id_that_was_not_learned_is_unknown() -> None:
    work = ctr.task(ratings([1, 0, 1, 0], ["b", "a", "b", "c"], ["x", "y", "z", "x"], [1, 2, 3, 4]), 2, 4)
    assert work.learned.codes.tolist() == [[2, 1], [1, 2]]
    assert work.tried.codes.tolist() == [[2, 0], [0, 1]]


def test_dcn_is_above_one_hot_logistic_regression_where_taste_is_a_product(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    women, drama = random.random(80) < 0.5, random.random(60) < 0.5
    people = [f"{u + 1}|30|{'F' if women[u] else 'M'}|writer|0" for u in range(80)]
    films = []
    for i in range(60):
        flags = ["0"] * 19
        flags[DRAMA if drama[i] else ACTION] = "1"
        films.append("|".join([str(i + 1), f"Film {i} (1990)", "01-Jan-1990", "", "", *flags]))
    pairs = random.permutation(80 * 60)[:3000]
    lines = []
    for second, (user, film) in enumerate(zip(pairs // 60, pairs % 60, strict=True)):
        likes = random.random() < (0.85 if women[user] == drama[film] else 0.15)
        lines.append(f"{user + 1}\t{film + 1}\t{5 if likes else 2}\t{880_000_000 + 60 * second}")
    for name, rows in (("u.data", lines), ("u.item", films), ("u.user", people)):
        (tmp_path / name).write_text("\n".join(rows) + "\n")
    document = ctr.run(tmp_path, seeds=2)
    assert document["tested"] == 300
    areas = {name: one["auc"]["mean"] for name, one in document["contestants"].items()}
    assert areas["logistic one-hot"] < 0.65
    assert areas["dcn_v2"] > 0.75
    gain = document["contestants"]["dcn_v2"]["over_one_hot"]
    assert gain["auc"] > 3 * gain["se"] > 0
