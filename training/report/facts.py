"""What a report tells beside the figures of the evaluation: whence the models come, and how they were judged."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from contracts.evidence import Check, Verdict, readiness
from contracts.quality import QualityPolicy
from registry.artifacts import Kind, model_name
from registry.environment import CodeState
from registry.evidence import WORST_FIRST
from training.calibration import Choice


@dataclass(frozen=True, slots=True)
class Facts:
    """rows: of the data set's tables. cut_us: the models of the figures saw rows before it; final_us: the registered
    ones. until_us: `--until`. evidence: of each model."""

    run_id: str
    data_name: str
    data_source: str
    data_digest: str
    rows: Mapping[str, int]
    cut_us: int
    final_us: int
    until_us: int | None
    seed: int
    rules: str
    feature_hash: str
    code: CodeState
    config: Mapping[str, Any]
    seconds: float
    importance: Mapping[str, float]
    calibration: Choice
    policy: QualityPolicy
    evidence: Mapping[Kind, Sequence[Check]]
    warnings: Sequence[str]

    @property
    def readiness(self) -> Verdict:
        """Of all checks, advisory ones by their failure alone; one of the checklist that is not there counts as open.
        The lineage is checked when the models are registered, which is after the report."""
        of_each = {readiness(model_name(kind), checks, ("lineage",)) for kind, checks in self.evidence.items()}
        return min(of_each, key=WORST_FIRST.index, default="inconclusive")

    def checks(self) -> list[tuple[Check, tuple[Kind, ...]]]:
        """Each check once, with the models that carry it; what fails first."""
        owners: dict[str, list[Kind]] = {}
        found: dict[str, Check] = {}
        for kind, checks in self.evidence.items():
            for check in checks:
                key = f"{check.name} {check.detail}"  # one of the same name may say another thing of another model
                found[key] = check
                owners.setdefault(key, []).append(kind)
        order = ("fail", "inconclusive", "pass")
        ranked = sorted(found, key=lambda key: (order.index(found[key].verdict), found[key].advisory))
        return [(found[key], tuple(owners[key])) for key in ranked]

    def command(self, until: str | None) -> str:
        """The command that trained this. until: `--until` in words."""
        words = ["streamrec", "train", "--data", self.data_source, *(["--until", until] if until else [])]
        words += ["--seed", str(self.seed)]
        ranking = self.config.get("ranking", {})
        for name in ("moments", "ranker"):
            words += [f"--{name}", str(ranking[name])] if name in ranking else []
        return shlex.join(words)
