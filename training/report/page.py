"""One HTML file a training: what was trained, whether it may be believed, what it is worth and whom it leaves out.

It opens without a network, holds no script, and every word of the data in it is escaped (`registry/page.py`).
"""

from collections.abc import Callable, Mapping
from pathlib import Path

from markupsafe import Markup

from registry import page as html
from training.assess import Evaluation
from training.report import origin, parts, people, quality
from training.report.facts import Facts

FOLDER, NAME = "report", "training.html"  # of the run in MLflow

Section = Callable[[Facts, Evaluation], list[Markup]]
# anchor → (words, what makes it), in the order of the page
OF_EVALUATION: Mapping[str, tuple[str, Section]] = {
    "figures": ("Figures", quality.figures),
    "ladder": ("Ladder", quality.ladder),
    "recall": ("Recall by source and by k", quality.recall),
    "ablations": ("Ablations", parts.ablations),
    "slices": ("Slices", people.slices),
    "fairness": ("Fairness", people.fairness),
    "cold": ("Cold start", people.cold_start),
    "calibration": ("Calibration", quality.calibration),
}


def write_report(target: Path, facts: Facts, judged: Evaluation | None) -> Path:
    """Write the page; without an evaluation what there is to tell of the rest."""
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.name}.part")
    part.write_text(report(facts, judged), encoding="utf-8")
    return part.rename(target)


def report(facts: Facts, judged: Evaluation | None) -> str:
    """The document."""
    sections = {"checks": ("Checks", origin.checks(facts))}
    if judged is not None and judged.n_users:
        sections |= {anchor: (words, make(facts, judged)) for anchor, (words, make) in OF_EVALUATION.items()}
    sections["importance"] = ("Feature importance", parts.importance(facts))
    sections["lineage"] = ("Lineage, and how to repeat it", origin.lineage(facts))
    body = [*origin.head(facts, judged), html.contents({anchor: words for anchor, (words, _) in sections.items()})]
    for anchor, (words, made) in sections.items():
        body += [html.heading(words, anchor=anchor), *made]
    return html.page(f"Training of {facts.data_name}, run {facts.run_id}", *body)
