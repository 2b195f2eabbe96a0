"""What the checks found, in the MLflow run."""

from collections.abc import Sequence
from typing import Any

from contracts.evidence import Check
from contracts.quality import QualityPolicy
from training.assess import Evaluation
from training.calibration import Choice
from training.study.checks import parts


def log_rigour(
    run: Any, found: Sequence[Check], judged: Evaluation | None, policy: QualityPolicy, choice: Choice
) -> None:
    """checks.json, slice_limits.json, study.json and calibration.json; figures of the checks as metrics."""
    run.log_json("checks.json", {check.name: check.model_dump(mode="json") for check in found})
    run.log_json("calibration.json", choice.plain())
    run.log_json("quality_policy.json", policy.model_dump(mode="json"))
    run.log_metrics({f"check/{check.name}/{name}": value for check in found for name, value in check.figures.items()})
    if judged is not None and judged.study is not None:
        run.log_json("slice_limits.json", {"slices": [part.plain() for part in parts(judged, policy.slices)]})
        run.log_json("study.json", judged.study.plain())
