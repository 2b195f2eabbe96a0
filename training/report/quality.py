"""How good the models are: figures, ladder, recall, calibration."""

from markupsafe import Markup

from registry import page as html
from training.assess import Evaluation
from training.evaluation.alone import BESIDE
from training.evaluation.report import PAIRED, RECALL_AT
from training.report import plots
from training.report.facts import Facts
from training.report.words import estimate, number

METRICS = ("ndcg@10", "recall@10", "hit@10", "mrr@10", "map@10", "recall@500", "coverage")


def figures(facts: Facts, judged: Evaluation) -> list[Markup]:
    """Every recommender on the same users, the best first."""
    known = sorted((s for s in judged.tables() if s.not_run is None), key=lambda s: -s.value("ndcg@10"))
    top = max((s.value("ndcg@10") for s in known), default=0.0)
    rows = [
        (s.name, html.bar(s.value("ndcg@10"), top), *(estimate(s.overall[metric]) for metric in METRICS)) for s in known
    ]
    left = [(s.name, "", f"not run: {s.not_run}") for s in judged.tables() if s.not_run is not None]
    return [
        html.picture(plots.svg(plots.models(judged)), "NDCG@10 of every recommender with its error"),
        html.table(("", "", *METRICS), rows),
        *([html.table(("", "", ""), left)] if left else []),
        html.paragraph(
            "± one standard error over users. The funnel is the one that serves, with its rules and without them."
        ),
    ]


def ladder(facts: Facts, judged: Evaluation) -> list[Markup]:
    """From the simplest model: is the next one worth what it costs?"""
    steps = judged.ladder
    rows = [
        (
            rung.name,
            rung.family,
            estimate(rung.value),
            "" if rung.name == steps.base else estimate(rung.uplift, sign=True),
            number(rung.cost.train_s, 1),
            number(rung.cost.serve_us, 0),
            html.verdict(rung.verdict),
            rung.why,
        )
        for rung in steps.rungs
    ]
    columns = ("", "", "ndcg@10", f"over {steps.base}", "train s", "serve µs", "verdict", "why")
    choice = f"The simplest model within {steps.tolerance:.0%} of the best figure: {steps.choice or 'none is known'}."
    return [html.table(columns, rows), html.paragraph(choice)]


def recall(facts: Facts, judged: Evaluation) -> list[Markup]:
    """How deep one must read, and which source finds what."""
    overall = judged.funnel.overall
    union = overall["recall@500"]
    rows: list[tuple[object, ...]] = [
        ("union of all sources", html.bar(union.value, union.value), estimate(union), "", "", "")
    ]
    for one in sorted(judged.alone, key=lambda one: -one.scores.value("recall@500")):
        gains = (estimate(one.gain[metric], sign=True) if one.gain else "" for metric in PAIRED)
        found, order = one.scores.overall["recall@500"], one.scores.overall["ndcg@10"]
        rows.append((one.scores.name, html.bar(found.value, union.value), estimate(found), estimate(order), *gains))
    gained = (f"{metric} over {BESIDE}" for metric in PAIRED)
    curves = [(name, *(number(curve.get(k)) for k in RECALL_AT)) for name, curve in judged.recall_by_k.items()]
    return [
        html.side_by_side(
            html.picture(plots.svg(plots.recall_by_k(judged)), "recall by k"),
            html.table(("source alone", "", "recall@500", "ndcg@10", *gained), rows),
        ),
        html.table(("recall@k", *RECALL_AT), curves),
    ]


def calibration(facts: Facts, judged: Evaluation) -> list[Markup]:
    """Are the probabilities any? Kept apart from how well they order."""
    ranker, choice = judged.ranker, facts.calibration
    share = ranker.ece / ranker.base_rate if ranker.base_rate else float("nan")
    lines: list[tuple[str, object]] = [
        ("candidates", f"{ranker.n_rows:,}, {ranker.base_rate:.4f} of them positive"),
        ("ECE", f"{number(ranker.ece, 5)}, {number(100 * share, 0)} % of the base rate"),
        ("log loss", estimate(ranker.log_loss)),
        ("AUC", estimate(ranker.auc)),
        ("served by", f"{choice.chosen}, chosen on validation rows: {choice.why}"),
    ]
    curve = ranker.calibration
    bins = html.table(
        ("predicted", "observed", "candidates"),
        [
            (number(p, 5), number(o, 5), f"{n:,}")
            for p, o, n in zip(curve.predicted, curve.observed, curve.count, strict=True)
        ],
    )
    return [
        html.side_by_side(
            html.picture(plots.svg(plots.calibration(judged)), "reliability plot of the ranker"),
            html.facts(lines),
        ),
        html.folded("the bins", bins),
    ]
