"""What a card says, section by section, from what is known of a version."""

from collections.abc import Iterable, Mapping
from typing import Any

from contracts.checklist import wanted
from registry.artifacts import Kind
from registry.cards.card import Card, Cell, Command, Part, Points, Section, Table
from registry.cards.facts import Facts, moment

USE: Mapping[Kind, tuple[str, tuple[str, ...]]] = {
    "retrieval": (
        "Finds up to 500 candidates for one person in the whole catalogue: five sources, each with a share of them.",
        (
            "Not for showing as they come: what is blocked is left out, but nothing is in the order of the ranker.",
            "Not for comparing people or items by their vectors: those of two versions have nothing in common.",
        ),
    ),
    "ranking": (
        "Orders the candidates of the retrieval model beside it by the probability that a person takes them up.",
        (
            "Not on candidates of another retrieval model: the features of its own are among its columns.",
            "Not as a measure of an item or of a person: it tells what is taken up here, as the log has it.",
            "Not for decisions on people: prices, credit, access, moderation.",
        ),
    ),
    "fallback": (
        "Answers when the ranker cannot: a linear ranker over the same columns, below it lists by popularity.",
        ("Not as a ranker where there is time for the other: the figures here are those of the whole funnel.",),
    ),
}
MOST_SLICES = 60
FIGURES = ("ndcg@10", "recall@10", "hit@10", "mrr@10", "map@10", "recall@500", "coverage")
RANKER = {"ranker_auc": "AUC", "ranker_log_loss": "log loss", "ranker_ece": "calibration error (ECE)"}


def card_of(facts: Facts) -> Card:
    version = facts.version
    readiness = facts.evidence.readiness if facts.evidence else "no evidence"
    lead: list[Part] = [
        Table(
            ("version", "verdict", "aliases", "trained until", "registered"),
            (
                (
                    version.uri,
                    readiness,
                    ", ".join(version.aliases) or "none",
                    moment(version.tags.get("trained_until_us")),
                    moment(version.created_us),
                ),
            ),
        )
    ]
    sections = [
        Section("Intended use", _use(facts)),
        Section("Framing", _framing(facts)),
        Section("Data", _data(facts)),
        Section("Figures", _figures(facts)),
        Section("Slices and fairness", _groups(facts)),
        Section("Calibration", _calibration(facts)),
        Section("Limits", _limits(facts)),
        Section("Checks", _checks(facts)),
        Section("Lineage", _lineage(facts)),
        Section("When it goes wrong", _when_wrong(facts)),
    ]
    return Card(f"{version.name} {version.number}", lead, [section for section in sections if section.parts])


def _use(facts: Facts) -> list[Part]:
    use, never = USE[facts.version.kind]
    others = [one.uri for kind, one in facts.beside.items() if kind != facts.version.kind]
    return [use, f"It serves together with {' and '.join(others) or 'nothing that is registered'}.", Points(never)]


def _framing(facts: Facts) -> list[Part]:
    if not facts.framing:
        return ["Not declared: this version was registered without a framing document."]
    return [Table(("", "declared"), tuple((name, _said(value)) for name, value in facts.framing.items()))]


def _data(facts: Facts) -> list[Part]:
    tags, figures = facts.version.tags, facts.figures
    cut_us = facts.run.params.get("cut_us") if facts.run else None
    rows: list[tuple[Cell, ...]] = [
        ("data set", tags.get("data_name")),
        ("read from", tags.get("data_source")),
        ("content (SHA-256)", tags.get("data_digest")),
        ("rows from", moment(facts.since_us)),
        ("rows until", moment(tags.get("trained_until_us"))),
    ]
    if figures.get("test_users"):
        tested = f"{figures['test_users']:,.0f} people, {figures.get('test_targets', 0):,.0f} wishes"
        rows.append(("figures are of", f"{tested}, from {moment(cut_us)} on, by models fitted on the rows before"))
    return [Table(("", ""), tuple(row for row in rows if row[1]))]


def _figures(facts: Facts) -> list[Part]:
    figures, baselines = facts.figures, facts.baselines
    if not figures:
        return ["Not evaluated."]
    parts: list[Part] = [
        "Of the funnel as it serves, rules included; ± one standard error over people. Baselines read the same rows."
    ]
    shown = [name for name in FIGURES if name in figures]
    rows = [("funnel", *(_with_error(figures, name) for name in shown))]
    rows += [(name, *(_with_error(found, metric) for metric in shown)) for name, found in baselines.items() if found]
    parts.append(Table(("", *shown), tuple(rows)))
    if facts.version.kind == "retrieval":
        found = {
            name.split(":", 1)[1]: name for name in figures if name.startswith("recall@500:") and name[-3:] != "_se"
        }
        parts.append(
            Table(
                ("candidates", "recall@500"),
                (
                    ("all sources together", _with_error(figures, "recall@500")),
                    *((f"{source} alone", _with_error(figures, name)) for source, name in found.items()),
                ),
            )
        )
    elif facts.ladder:
        parts.append("The ladder: without rules, from the simplest model up; gain over the best simpler one.")
        parts.append(
            Table(
                ("model", "family", "ndcg@10", "gain", "train s", "serve µs", "verdict", "why"),
                tuple(
                    (
                        rung["model"],
                        rung["family"],
                        _plus_minus(rung["ndcg@10"], rung["ndcg@10_se"]),
                        _plus_minus(rung["gain"], rung["gain_se"]),
                        rung["train_s"],
                        rung["serve_us"],
                        rung["verdict"],
                        rung["why"],
                    )
                    for rung in facts.ladder
                ),
            )
        )
    return parts


def _groups(facts: Facts) -> list[Part]:
    if facts.version.kind != "ranking":
        return _elsewhere(facts)
    parts: list[Part] = [*_detail(facts, "slices")]
    # What is worst first: a card is read from the top.
    order = {"fail": 0, "inconclusive": 1, "pass": 2}
    slices = sorted(facts.slices, key=lambda part: (order.get(part["verdict"], 3), _share(part)))
    if slices:
        parts.append(
            Table(
                ("slice", "metric", "n", "value", "interval", "of the whole", "verdict"),
                tuple(
                    (
                        part["slice"],
                        part["metric"],
                        part["n"],
                        part["value"],
                        _interval(part["low"], part["high"]),
                        f"{_share(part):.0%}" if part["value"] is not None else "",
                        part["verdict"],
                    )
                    for part in slices[:MOST_SLICES]
                ),
            )
        )
        if len(slices) > MOST_SLICES:
            parts.append(f"{len(slices) - MOST_SLICES} more are in slice_limits.json of the run.")
    impacts = [impact for impact in facts.study.get("fairness", ()) if impact["ratio"] is not None]
    if impacts:
        parts.append("Disparate impact: the least served group over the best served.")
        parts.append(
            Table(
                ("of what", "ratio", "interval", "least", "most"),
                tuple(
                    (i["what"], i["ratio"], _interval(i["low"], i["high"]), i["least"], i["greatest"]) for i in impacts
                ),
            )
        )
    return [*parts, *_detail(facts, "cold_start")]


def _calibration(facts: Facts) -> list[Part]:
    if facts.version.kind != "ranking":
        return []
    figures = facts.figures
    known = tuple((words, _with_error(figures, name)) for name, words in RANKER.items() if name in figures)
    return [*([Table(("of the candidates", ""), known)] if known else []), *_detail(facts, "calibration")]


def _limits(facts: Facts) -> list[Part]:
    open_ = tuple(f"{check.name}, {check.verdict}: {check.detail}" for check in facts.checks if check.verdict != "pass")
    said = [
        *facts.warnings,
        "It knows people and items up to the moment until which it was trained; for those that it has never met see "
        "cold_start.",
        "Figures are of what people took up after what they were shown then. What another list would have brought, an "
        "experiment tells.",
    ]
    parts: list[Part] = [Points(tuple(said))]
    return [*parts, "Not passed:", Points(open_)] if open_ else parts


def _checks(facts: Facts) -> list[Part]:
    if facts.evidence is None:
        return ["It carries no evidence."]
    items = wanted(facts.version.name)
    rows: list[tuple[Cell, ...]] = [
        (items[check.name].name if check.name in items else "", check.name, check.verdict, check.detail)
        for check in facts.checks
    ]
    there = {check.name for check in facts.checks}
    rows += [
        (item.name, name, "missing", f"never checked: {item.typed}")
        for name, item in items.items()
        if name not in there
    ]
    return [Table(("item", "check", "verdict", "detail"), tuple(rows))]


def _lineage(facts: Facts) -> list[Part]:
    tags = facts.version.tags
    code = tags.get("git_commit", "")
    if tags.get("git_dirty") == "true":
        code += " with changes; the sources are in code/sources.tar.gz of the run"
    rows: tuple[tuple[Cell, ...], ...] = (
        ("run", f"{facts.version.run_id}{'' if facts.run else ' (deleted)'}"),
        ("code", code),
        ("sources (SHA-256)", tags.get("code_digest")),
        ("environment (SHA-256)", tags.get("environment_digest")),
        ("data (SHA-256)", tags.get("data_digest")),
        ("feature definitions", tags.get("feature_hash")),
        ("files (SHA-256 of the manifest)", tags.get("manifest_sha256")),
        ("seeds", tags.get("seeds")),
    )
    return [
        Table(("", ""), tuple(row for row in rows if row[1])),
        Command(f"streamrec models lineage {facts.version.uri}"),
    ]


def _when_wrong(facts: Facts) -> list[Part]:
    called, back = facts.check("escalation"), facts.check("rollback")
    return [
        Points(
            (
                f"Who answers for it: {called.detail if called else 'nobody is named'}.",
                f"What stands in for it: {back.detail if back else 'nothing is named'}.",
            )
        ),
        "Everyone back to what was champion before:",
        Command("streamrec release rollback --reason WHY"),
    ]


def _elsewhere(facts: Facts) -> list[Part]:
    ranking = facts.beside.get("ranking")
    return [f"Measured on the whole funnel: see the card of {ranking.uri}."] if ranking else []


def _detail(facts: Facts, name: str) -> Iterable[Part]:
    check = facts.check(name)
    return [f"{name}, {check.verdict}: {check.detail}."] if check else []


def _said(value: Any) -> str:
    """One entry of a framing."""
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {number:g}" for name, number in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def _with_error(figures: Mapping[str, float], name: str) -> str:
    return _plus_minus(figures.get(name), figures.get(f"{name}_se"))


def _plus_minus(value: float | None, error: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.4f}" + ("" if error is None else f" ± {error:.4f}")


def _interval(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f"[{low:.4f}, {high:.4f}]"


def _share(part: Mapping[str, Any]) -> float:
    """Of the whole's figure; 1 where nothing is known."""
    return float(part["value"] / part["whole"]) if part["value"] is not None and part["whole"] else 1.0
