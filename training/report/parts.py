"""What each part is for: ablations, feature importance."""

from markupsafe import Markup

from registry import page as html
from training.ablation.result import Ablated, Ablations
from training.assess import Evaluation
from training.report import plots
from training.report.facts import Facts
from training.report.words import estimate, number

WORDS = {"earns its place": "good", "does harm": "bad", "inconclusive": "open"}


def ablations(facts: Facts, judged: Evaluation) -> list[Markup]:
    """One part away at a time, on the same people; what is missed most comes first."""
    found = judged.ablations
    if found is None:
        return [html.paragraph("Not made: no test user was to be asked (`ablation.users`).")]
    rules = found.of("rule")
    shown = list(found.shown)
    return [
        html.paragraph(
            f"Of {found.whole.n:,} test users. With everything: NDCG@10 {estimate(found.whole)}, recall@500 "
            f"{estimate(found.recall)}. Changes are paired over users; a verdict is beyond the chance that any line of "
            "the table is."
        ),
        html.picture(plots.svg(plots.ablations(found)), "change of NDCG@10 without each part"),
        html.heading("Sources", 3),
        html.paragraph("Switched off; the candidates of the others are merged anew and ranked by the same ranker."),
        html.table(
            ("without", "ndcg@10", "change", "change of recall@500", "request spared, µs", "verdict"),
            [
                (
                    part.name,
                    estimate(part.value),
                    estimate(part.change, sign=True),
                    estimate(part.recall_change, sign=True),
                    number(part.cost_us, 0),
                    _verdict(found, part),
                )
                for part in found.of("source")
            ],
        ),
        html.heading("Groups of columns", 3),
        html.paragraph(
            "Their values come from candidates of somebody else, the columns of a group together; the ranker is not "
            "learned anew, which might make up for some. All columns are made in one go, in "
            f"{number(found.rows_us, 0)} of the {number(found.request_us, 0)} µs of CPU that a request takes; groups "
            f"without a time of their own share {number(found.shared_us, 0)} µs of it: they are gathered together."
        ),
        html.table(
            ("without", "columns", "ndcg@10", "change", "request spared, µs", "verdict", "reads", ""),
            [
                (
                    part.name,
                    part.columns,
                    estimate(part.value),
                    estimate(part.change, sign=True),
                    number(part.cost_us, 0),
                    _verdict(found, part),
                    ", ".join(part.inputs),
                    part.why,
                )
                for part in found.of("features")
            ],
        ),
        html.heading("Rules", 3),
        html.paragraph(
            "A rule is bought with NDCG@10: the change without it is its price. In the first ten, on average: "
            "categories, young items, items of under-exposed creators."
        ),
        html.table(
            ("without", "ndcg@10", "change", "request spared, µs", *shown),
            [
                (
                    "nothing: as served",
                    estimate(found.whole),
                    "",
                    "",
                    *(number(found.shown[name], 2) for name in shown),
                ),
                *(
                    (
                        part.name,
                        estimate(part.value),
                        estimate(part.change, sign=True),
                        number(part.cost_us, 0),
                        *(number(part.shown.get(name), 2) for name in shown),
                    )
                    for part in rules
                ),
            ],
        ),
    ]


def _verdict(found: Ablations, part: Ablated) -> Markup | str:
    word = found.verdict(part) if part.change.n else None
    return html.toned(word, WORDS[word]) if word else ""


def importance(facts: Facts) -> list[Markup]:
    """Column by column, of the network on held-out users."""
    if not facts.importance:
        return [html.paragraph("Not known: the held-out rows have one class only.")]
    ranked = sorted(facts.importance.items(), key=lambda pair: -pair[1])
    top = ranked[0][1]
    table = html.table(
        ("column", "", "AUC lost"), [(name, html.bar(lost, top), number(lost, 5)) for name, lost in ranked]
    )
    return [
        html.picture(plots.svg(plots.importance(facts.importance)), "feature importance"),
        html.paragraph(
            "AUC on people held out from learning that is lost when one column is shuffled. Two columns that say "
            "the same each look less important than they are together: the ablations take a group at a time."
        ),
        html.folded(f"all {len(ranked)} columns", table),
    ]
