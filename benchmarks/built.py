"""The reference world as a real Bento: registered in MLflow, pinned and built, without training."""

from pathlib import Path

from benchmarks.reference_home import Reference
from contracts.evidence import Check
from contracts.settings import Settings
from registry.artifacts import KINDS
from registry.builds import build, make_plan
from registry.models import Registry
from registry.registration import Lineage


def bento(made: Reference, home: Path) -> str:
    """Its tag, in the stores under `home`."""
    registry = Registry.open(Settings(home=home))
    metrics = {"ndcg@10": 0.0}
    lineage = Lineage("reference", "0" * 64, "", {"reference": 1}, None, metrics, {"none": metrics})
    with registry.run("reference") as run:
        checks = [Check(name="drawn", verdict="inconclusive", detail="weights are drawn, not trained")]
        run.register({kind: made.world / kind for kind in KINDS}, checks, lineage)
    return build(make_plan(registry), home).tag
