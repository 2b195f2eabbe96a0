"""The evidence of a training: what its exported files differ by, and which of them serve."""

from typing import Any

import pytest

from registry.artifacts import Manifest
from training.checks import export_equality, ranker_export
from training.models.dcn_fast import Agreement, Choice

FLOAT32 = Agreement(overlap=1.0, ndcg_loss=0.0, max_difference=3e-7, users=24)
INT8 = Agreement(overlap=0.991, ndcg_loss=0.0003, max_difference=0.02, users=12)


def manifest(files: tuple[str, ...], **params: Any) -> Manifest:
    return Manifest("ranking", dict.fromkeys(files, ""), "", "", "", 1, 0, "wall", 0, params)


def with_fast(fast: Any) -> Manifest:
    return manifest(("dcn.onnx", "dcn_fast.onnx"), ranker="dcn", format="onnx", fast=fast)


def test_the_graph_that_serves_on_a_cpu_is_told_with_its_figures() -> None:
    check = ranker_export(with_fast(Choice("int8", "less time", FLOAT32, INT8).params), 2e-8)
    assert check.verdict == "pass"
    assert "dcn.onnx differs from PyTorch by at most 2.0e-08" in check.detail
    assert "on a CPU dcn_fast.onnx serves, in int8: it differs from dcn.onnx by at most 2.0e-02" in check.detail
    assert "99.10% of its first 50" in check.detail
    assert check.detail.endswith("elsewhere dcn.onnx")
    assert check.figures == {
        "max_difference": 2e-8,
        "fast_max_difference": 0.02,
        "fast_overlap": 0.991,
        "fast_ndcg_loss": 0.0003,
        "fast_users": 12,
    }
    folded = ranker_export(with_fast(Choice("float32", "small", FLOAT32, INT8).params), 2e-8)
    assert folded.verdict == "pass"
    assert "in float32: it differs from dcn.onnx by at most 3.0e-07" in folded.detail


@pytest.mark.parametrize("fast", [None, {}, "int8", {"arithmetic": "int8", "int8": None}, {"arithmetic": "why"}])
def test_a_fast_graph_without_figures_is_no_parity(fast: Any) -> None:
    check = ranker_export(with_fast(fast), 2e-8)
    assert check.verdict == "inconclusive"
    assert "dcn_fast.onnx serves, without figures" in check.detail


@pytest.mark.parametrize(
    ("choice", "verdict"),
    [
        (Choice("float32", "", Agreement(1.0, 0.0, 2e-4, 24)), "fail"),
        (Choice("float32", "", Agreement(1.0, 0.0, 2e-7, 0)), "pass"),  # scores are compared, whoever's they are
        (Choice("int8", "", FLOAT32, Agreement(0.97, 0.0003, 0.02, 12)), "fail"),
        (Choice("int8", "", FLOAT32, Agreement(1.0, 0.0, 0.02, 0)), "inconclusive"),
    ],
)
def test_the_fast_graph_is_held_to_what_it_was_chosen_by(choice: Choice, verdict: str) -> None:
    assert ranker_export(with_fast(choice.params), 2e-8).verdict == verdict


def test_the_plain_file_still_counts_and_serves_everywhere_where_there_is_no_other() -> None:
    good = Choice("int8", "", FLOAT32, INT8).params
    assert ranker_export(with_fast(good), 2e-4).verdict == "fail"
    assert ranker_export(with_fast(None), 2e-4).verdict == "fail"
    for check in (
        ranker_export(manifest(("trees.onnx",), ranker="trees", format="onnx"), 1e-7),
        ranker_export(manifest(("dcn.onnx",)), 1e-7),
        export_equality("two_tower.onnx", 1e-7),
    ):
        assert check.verdict == "pass"
        assert check.detail.endswith("it serves on every device")
