"""The pictures of a run. Words of the data stay words in them: a title may hold a dollar sign, which is no formula."""

import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

matplotlib.use("Agg")

from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from contracts.evidence import Verdict
from training.ablation.result import Ablations
from training.assess import Evaluation
from training.evaluation.limits import Part
from training.evaluation.metrics import Estimate
from training.evaluation.report import RECALL_AT

STYLE: Any = {"text.parse_math": False, "svg.fonttype": "none", "svg.hashsalt": "streamrec", "font.size": 9}
COLOURS: Mapping[Verdict, str] = {"pass": "#17733b", "inconclusive": "#8a6100", "fail": "#b3261e"}
INK, OTHER = "#0b5cad", "#d98c84"
MOST_COLUMNS = 20  # of importance
LONGEST_NAME = 48
CROWDED = (300, 400)  # their numbers would stand on their neighbours'


def draw(judged: Evaluation, folder: Path) -> list[Path]:
    """Write calibration.png and recall_by_k.png."""
    folder.mkdir(parents=True, exist_ok=True)
    found = []
    for name, figure in {"calibration.png": calibration(judged), "recall_by_k.png": recall_by_k(judged)}.items():
        part = folder / f"{name}.part"
        figure.savefig(part, dpi=110, format="png")
        pyplot.close(figure)
        found.append(part.rename(folder / name))
    return found


def svg(figure: Figure) -> bytes:
    """The same bytes for the same figure; closes it."""
    out = io.StringIO()
    with matplotlib.rc_context(STYLE):
        figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None})
    pyplot.close(figure)
    text = out.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.S)
    return re.sub(r"<!--.*?-->|\n\s*", lambda found: "" if found[0][0] == "<" else "\n", text, flags=re.S).encode()


@matplotlib.rc_context(STYLE)
def calibration(judged: Evaluation) -> Figure:
    curve = judged.ranker.calibration
    figure, axes = _axes(5, 4.5)
    top = max(float(curve.predicted.max(initial=0)), float(curve.observed.max(initial=0)), 1e-3)
    axes.plot([0, top], [0, top], color="grey", linewidth=1, linestyle="--", label="perfect")
    axes.plot(curve.predicted, curve.observed, marker="o", label="ranker, bins of equal count")
    axes.set(xlabel="mean predicted probability", ylabel="share of positives")
    axes.set_title(f"Calibration on the test window (ECE {judged.ranker.ece:.4f})")
    axes.legend()
    return figure


@matplotlib.rc_context(STYLE)
def recall_by_k(judged: Evaluation) -> Figure:
    figure, axes = _axes(5, 4.5)
    for name, curve in judged.recall_by_k.items():
        alone = name.endswith(" alone")
        axes.plot(list(curve), list(curve.values()), marker="." if alone else "o", linewidth=1, label=name)
    axes.set(xlabel="k", ylabel="recall@k", xscale="log")
    marked = [k for k in RECALL_AT if k not in CROWDED]
    axes.set_xticks(marked, list(map(str, marked)))
    axes.minorticks_off()
    axes.set_title(f"Candidates of {judged.n_users} users")
    axes.legend()
    return figure


@matplotlib.rc_context(STYLE)
def models(judged: Evaluation) -> Figure:
    """NDCG@10 of everything in the table, with two standard errors."""
    known = sorted((s for s in judged.tables() if s.not_run is None), key=lambda s: -s.value("ndcg@10"))
    names = [scores.name for scores in known]
    ours = [scores in (judged.funnel, judged.plain) for scores in known]
    return _intervals(
        names,
        [scores.overall["ndcg@10"] for scores in known],
        [INK if own else "#6b7683" for own in ours],
        "NDCG@10, ± two standard errors",
    )


@matplotlib.rc_context(STYLE)
def slices(parts: Sequence[Part], metric: str) -> Figure:
    """Every slice of one metric with its 95 % interval, its limit and the whole."""
    known = [part for part in parts if part.metric == metric and part.n]
    figure, axes = _axes(7, 0.8 + 0.2 * len(known))
    for place, part in enumerate(reversed(known)):
        axes.plot([part.low, part.high], [place, place], color=COLOURS[part.verdict], linewidth=1.5)
        axes.plot(part.value, place, "o", color=COLOURS[part.verdict], markersize=4)
        if part.judged:
            axes.plot(part.limit, place, "|", color="black", markersize=7)
    axes.set_yticks(range(len(known)), [f"{_short(part.name)} ({part.n})" for part in reversed(known)])
    if known:
        axes.axvline(known[0].whole, color="grey", linewidth=1, linestyle="--")
    axes.set_title(f"{metric} by slice (users): dashed the whole, | the limit", fontsize=9)
    return figure


@matplotlib.rc_context(STYLE)
def importance(lost: Mapping[str, float]) -> Figure:
    """The columns that the ranker would miss most."""
    top = sorted(lost.items(), key=lambda pair: pair[1])[-MOST_COLUMNS:]
    figure, axes = _axes(6, 0.8 + 0.2 * len(top))
    axes.barh([_short(name) for name, _ in top], [value for _, value in top], color=INK)
    axes.set_title("AUC lost when a column is shuffled", fontsize=9)
    return figure


@matplotlib.rc_context(STYLE)
def ablations(found: Ablations) -> Figure:
    """What NDCG@10 changes by without each part, with two standard errors: to the left is what is missed."""
    parts = [p for kind in ("source", "features", "rule") for p in found.of(kind) if np.isfinite(p.change.value)]
    colours = {"source": INK, "features": "#5f6b7a", "rule": "#b07100"}
    figure = _intervals(
        [f"{part.kind}: {part.name}" for part in parts],
        [part.change for part in parts],
        [colours[part.kind] for part in parts],
        "change of NDCG@10 without it, ± two standard errors",
    )
    figure.axes[0].axvline(0, color="grey", linewidth=1)
    return figure


def _intervals(names: Sequence[str], values: Sequence[Estimate], colours: Sequence[str], title: str) -> Figure:
    figure, axes = _axes(7, 0.8 + 0.22 * len(names))
    for place, (value, colour) in enumerate(zip(reversed(values), reversed(colours), strict=True)):
        error = 2 * value.se if np.isfinite(value.se) else 0.0
        axes.errorbar(value.value, place, xerr=error, fmt="o", color=colour, markersize=4, linewidth=1.5)
    axes.set_yticks(range(len(names)), [_short(name) for name in reversed(names)])
    axes.set_title(title, fontsize=9)
    return figure


def _axes(width: float, height: float) -> tuple[Figure, Axes]:
    figure, axes = pyplot.subplots(figsize=(width, height), layout="constrained")
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _short(name: str) -> str:
    """A name that leaves room for the picture."""
    return name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 1]}…"
