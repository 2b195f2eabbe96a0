"""Whom the models serve worse: slices, fairness, newcomers."""

from markupsafe import Markup

from registry import page as html
from training.assess import Evaluation
from training.evaluation.fairness import Impact
from training.evaluation.limits import worst
from training.report import plots
from training.report.facts import Facts
from training.report.words import estimate, interval, number
from training.study.checks import parts


def slices(facts: Facts, judged: Evaluation) -> list[Markup]:
    """Each against its limit, the lowest share of the whole first; those of nobody last."""
    found = parts(judged, facts.policy.slices)
    low = worst(list(found))
    made: list[Markup] = []
    if low is not None:
        share = low.value / max(low.whole, 1e-12)
        made.append(
            html.paragraph(
                f"Worst: {low.name}, {low.metric} {interval(low.value, low.low, low.high)} of {low.n} users, "
                f"{share:.0%} of the whole. ",
                html.verdict(low.verdict),
            )
        )
    metrics = dict.fromkeys(part.metric for part in found if part.n)
    made.append(
        html.side_by_side(
            *(html.picture(plots.svg(plots.slices(found, metric)), f"{metric} by slice") for metric in metrics)
        )
    )
    ordered = sorted(found, key=lambda part: (not part.n, part.value / max(part.whole, 1e-12) if part.n else 0.0))
    rows = [
        (
            part.name,
            part.metric,
            f"{part.n:,}",
            interval(part.value, part.low, part.high) if part.n else "–",
            f"{part.value / max(part.whole, 1e-12):.0%}" if part.n else "–",
            number(part.limit) if part.judged else "not judged",
            html.verdict(part.verdict),
            part.why,
        )
        for part in ordered
    ]
    columns = ("slice", "metric", "users", "figure, 95 %", "of the whole", "limit", "verdict", "why")
    return [*made, html.table(columns, rows)]


def fairness(facts: Facts, judged: Evaluation) -> list[Markup]:
    """Disparate impact, the least ratio first; the groups behind each."""
    limit = facts.policy.fairness.disparate_impact
    impacts = judged.study.impacts if judged.study else ()
    known = sorted((i for i in impacts if i.ratio == i.ratio), key=lambda i: i.ratio)
    rows = [
        (
            i.what,
            html.bar(i.ratio, 1.0),
            f"{i.ratio:.2f} [{i.low:.2f}, {i.high:.2f}]",
            _against(i, limit),
            f"{i.least} over {i.greatest}",
        )
        for i in known
    ]
    groups = [(i.what, name, number(rate), f"{i.n[name]:,}") for i in known for name, rate in i.rates.items()]
    rule = "a ratio surely below it fails" if facts.policy.fairness.enforce else "told, and left to people to judge"
    return [
        html.paragraph(
            "The least rate of a group over the greatest, 95 % over users, whichever groups they are; limit "
            f"{limit:g}: {rule}."
        ),
        html.table(("what", "", "ratio", f"against {limit:g}", "of"), rows),
        html.folded("every group", html.table(("what", "group", "rate", "users"), groups)),
    ]


def _against(impact: Impact, limit: float) -> Markup:
    if impact.high < limit:
        return html.toned("surely below", "bad")
    return html.toned("surely above", "good") if impact.low >= limit else html.toned("open", "open")


def cold_start(facts: Facts, judged: Evaluation) -> list[Markup]:
    """People whom training never saw, and items without an event."""
    if judged.study is None:
        return []
    cold = judged.study.cold
    metrics = list(next(iter(cold.setups.values()), {}))
    rows = [
        (name, *(estimate(found[metric]) for metric in metrics), f"{next(iter(found.values())).n:,}")
        for name, found in cold.setups.items()
    ]
    items = judged.study.items.get("item=cold (no event)", {})
    wished = [(metric, estimate(e), f"{e.n:,}") for metric, e in items.items() if e.n and metric.startswith("recall")]
    return [
        html.paragraph(f"{cold.found:,} new users in the test window."),
        *([html.table(("asked", *metrics, "users"), rows)] if rows else []),
        html.paragraph("Wishes for items that had no event before the cut:" if wished else "No item without an event."),
        *([html.table(("", "recall", "users"), wished)] if wished else []),
    ]
