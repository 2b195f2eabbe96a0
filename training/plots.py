"""The pictures of a run: is the ranker calibrated, and how deep must one read the candidates."""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")

from matplotlib import pyplot
from matplotlib.figure import Figure

from training.assess import Evaluation


def draw(judged: Evaluation, folder: Path) -> list[Path]:
    """Write calibration.png and recall_by_k.png."""
    folder.mkdir(parents=True, exist_ok=True)
    return [_calibration(judged, folder / "calibration.png"), _recall(judged, folder / "recall_by_k.png")]


def _calibration(judged: Evaluation, path: Path) -> Path:
    curve = judged.ranker.calibration
    figure, axes = pyplot.subplots(figsize=(5, 4.5), layout="constrained")
    top = max(float(curve.predicted.max(initial=0)), float(curve.observed.max(initial=0)), 1e-3)
    axes.plot([0, top], [0, top], color="grey", linewidth=1, linestyle="--", label="perfect")
    axes.plot(curve.predicted, curve.observed, marker="o", label="ranker, bins of equal count")
    axes.set(xlabel="mean predicted probability", ylabel="share of positives")
    axes.set_title(f"Calibration on the test window (ECE {judged.ranker.ece:.4f})")
    axes.legend()
    return _save(figure, path)


def _recall(judged: Evaluation, path: Path) -> Path:
    figure, axes = pyplot.subplots(figsize=(5, 4.5), layout="constrained")
    for name, curve in judged.recall_by_k.items():
        axes.plot(list(curve), list(curve.values()), marker="o", label=name)
    axes.set(xlabel="k", ylabel="recall@k", xscale="log")
    axes.set_title(f"Candidates of {judged.n_users} users")
    axes.legend()
    return _save(figure, path)


def _save(figure: Figure, path: Path) -> Path:
    part = path.with_name(path.name + ".part")
    figure.savefig(part, dpi=110, format="png")
    pyplot.close(figure)
    part.rename(path)
    return path
