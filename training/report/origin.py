"""The frame of a report: what it is of, its verdicts, and whence the models come."""

from collections.abc import Iterator, Mapping
from typing import Any

from markupsafe import Markup

from registry import page as html
from registry.artifacts import KINDS
from training.assess import Evaluation
from training.report.facts import Facts
from training.report.words import estimate, moment


def head(facts: Facts, judged: Evaluation | None) -> list[Markup]:
    """What was trained on what, and the one sentence that most readers want."""
    rows = ", ".join(f"{n:,} {table}" for table, n in facts.rows.items())
    windows: list[tuple[str, object]] = [
        ("data", f"{facts.data_name}: {rows}"),
        ("models registered", f"fitted on rows before {moment(facts.final_us)}"),
    ]
    if judged is not None:
        fitted = "" if facts.cut_us == facts.final_us else ", by models fitted before it; the registered ones saw it"
        window = f"{moment(judged.from_us)} to {moment(judged.to_us)}{fitted}"
        windows.append(("test window", f"{window}: {judged.n_users:,} users, {judged.n_targets:,} targets"))
    return [
        html.heading(f"Training of {facts.data_name}", 1),
        html.paragraph(html.verdict(facts.readiness), ": ", _in_short(judged)),
        html.facts(windows),
        *([html.heading("Warnings", 3), *map(html.paragraph, facts.warnings)] if facts.warnings else []),
    ]


def _in_short(judged: Evaluation | None) -> str:
    if judged is None or not judged.n_users:
        return "nothing was held out: there are no figures"
    ours = judged.funnel.overall["ndcg@10"]
    known = [scores for scores in judged.baselines if scores.not_run is None]
    best = max(known, key=lambda scores: scores.value("ndcg@10"), default=None)
    said = f"NDCG@10 {estimate(ours)} as served, {estimate(judged.plain.overall['ndcg@10'])} without rules"
    if best is not None:
        said += f"; the best baseline, {best.name}, has {estimate(best.overall['ndcg@10'])}"
    choice = judged.ladder.choice
    return said + (
        f". The simplest model within {judged.ladder.tolerance:.0%} of the best: {choice}." if choice else "."
    )


def checks(facts: Facts) -> list[Markup]:
    """Every verdict, what fails first, with the command that makes what is missing."""
    return [
        html.table(
            ("verdict", "check", "of", "what was found", "what makes it"),
            [
                (
                    html.verdict(check.verdict),
                    check.name + (" (advisory)" if check.advisory else ""),
                    "all" if len(kinds) == len(KINDS) else ", ".join(kinds),
                    check.detail,
                    (check.command or "") if check.verdict != "pass" else "",
                )
                for check, kinds in facts.checks()
            ],
        ),
        html.paragraph(
            "As the training left them; later checks and the lineage's own stand in the evidence of the versions:"
            " streamrec models show streamrec-ranking@latest"
        ),
    ]


def lineage(facts: Facts) -> list[Markup]:
    """Everything that this training hangs on."""
    code = f"{facts.code.commit}{', and changes that no commit names' if facts.code.dirty else ''}"
    until = None if facts.until_us is None else moment(facts.until_us).removesuffix(" UTC").replace(" ", "T")
    return [
        html.facts(
            [
                ("run", facts.run_id),
                ("data, SHA-256 of its rows", facts.data_digest),
                ("data came from", facts.data_source),
                ("code", code),
                ("code, SHA-256", facts.code.digest),
                ("feature definitions", facts.feature_hash),
                ("rules", facts.rules),
                ("seed", str(facts.seed)),
                ("took", f"{facts.seconds:,.0f} s until this report"),
            ]
        ),
        html.paragraph("The same training again, from what the run has kept, every figure compared:"),
        html.code(f"streamrec train --from-run {facts.run_id}"),
        html.paragraph("As it was asked for, on the data set as it is now:"),
        html.code(facts.command(until)),
        html.folded("everything that has a number", html.facts(_flat(facts.config))),
        html.folded("the quality policy", html.facts(_flat(facts.policy.model_dump(mode="json")))),
    ]


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, object]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
