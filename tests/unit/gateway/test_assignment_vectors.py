"""The vectors that GrowthBook publishes with its SDKs, by number: one that differs would reassign users in silence."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from growthbook import Experiment, GrowthBook, core

from bentos.gateway.hashing import bucket_ranges, choose_many, choose_variation, gbhash, gbhash_many

COUNTS = {
    "hash": 15,
    "getBucketRange": 13,
    "chooseVariation": 13,
    "inNamespace": 16,
    "getEqualWeights": 6,
    "evalCondition": 248,
    "run": 73,
    "feature": 55,
}
NAMES = {"qaMode": "qa_mode", "forcedVariations": "forced_variations", "savedGroups": "saved_groups"}


@pytest.fixture(scope="module")
def vectors() -> dict[str, list[Any]]:
    shared = Path(os.environ.get("STREAMREC_SHARED_DATA", Path(__file__).parents[4] / "shared" / "data"))
    path = shared / "growthbook-sdk" / "cases.json"
    if not path.exists():
        pytest.skip(f"VECTORS NOT FOUND at {path}: set STREAMREC_SHARED_DATA")
    found: dict[str, list[Any]] = json.loads(path.read_text())
    return found


def engine(context: dict[str, Any]) -> GrowthBook:
    return GrowthBook(**{NAMES.get(key, key): value for key, value in context.items()})


def test_the_number_of_vectors_is_the_known_one(vectors: dict[str, list[Any]]) -> None:
    assert {name: len(vectors[name]) for name in COUNTS} == COUNTS


def test_hash_gives_the_published_values(vectors: dict[str, list[Any]]) -> None:
    assert [core.gbhash(seed, value, version) for seed, value, version, _ in vectors["hash"]] == [
        expected for *_, expected in vectors["hash"]
    ]


def test_our_hash_of_one_and_of_many_gives_the_published_values_of_version_2(vectors: dict[str, list[Any]]) -> None:
    second = [(seed, value, expected) for seed, value, version, expected in vectors["hash"] if version == 2]
    assert len(second) == 7
    for seed, value, expected in second:
        assert gbhash(seed, value) == expected
        assert gbhash_many(seed, [value]).tolist() == [expected]


def test_bucket_ranges_are_the_published_ones(vectors: dict[str, list[Any]]) -> None:
    for name, (number, coverage, weights), expected in vectors["getBucketRange"]:
        if weights is None:
            ranges = core.getBucketRanges(number, coverage)
        elif len(weights) == number:
            ranges = bucket_ranges(weights, coverage)
        else:
            ranges = core.getBucketRanges(number, coverage, weights)
        assert ranges == [pytest.approx(pair) for pair in expected], name


def test_variations_are_the_published_ones(vectors: dict[str, list[Any]]) -> None:
    for name, n, ranges, expected in vectors["chooseVariation"]:
        pairs = [(low, high) for low, high in ranges]
        assert choose_variation(n, pairs) == expected, name
        assert choose_many(np.array([n]), pairs).tolist() == [expected], name


def test_namespaces_are_the_published_ones(vectors: dict[str, list[Any]]) -> None:
    for name, unit, namespace, expected in vectors["inNamespace"]:
        assert core.inNamespace(unit, namespace) is expected, name


def test_equal_weights_are_the_published_ones(vectors: dict[str, list[Any]]) -> None:
    for number, expected in vectors["getEqualWeights"]:
        assert core.getEqualWeights(number) == pytest.approx(expected, abs=1e-8)


def test_conditions_hold_as_published(vectors: dict[str, list[Any]]) -> None:
    wrong = [
        name
        for name, condition, attributes, expected, *groups in vectors["evalCondition"]
        if core.evalCondition(attributes, condition, groups[0] if groups else {}) is not expected
    ]
    assert wrong == []


def test_experiments_run_as_published(vectors: dict[str, list[Any]]) -> None:
    wrong = []
    for name, context, experiment, value, included, hashed in vectors["run"]:
        result = engine(context).run(Experiment(**experiment))
        if (result.value, result.inExperiment, result.hashUsed) != (value, included, hashed):
            wrong.append(name)
    assert wrong == []


def test_features_evaluate_as_published(vectors: dict[str, list[Any]]) -> None:
    wrong = []
    for name, context, key, expected in vectors["feature"]:
        result = engine(context).eval_feature(key).to_dict()
        for part, want in expected.items():
            got = result[part]
            if part in ("experiment", "experimentResult"):  # the vectors name only what matters of these
                got = {k: got.get(k) for k in want}
            if got != want:
                wrong.append((name, part))
    assert wrong == []
