"""The study of an evaluation, as checks of the evidence document."""

from collections.abc import Mapping, Sequence

import numpy as np

from contracts.checklist import UNTIL
from contracts.evidence import Check, Verdict
from contracts.quality import CalibrationLimits, FairnessLimits, QualityPolicy, SliceLimits
from training.assess import Evaluation
from training.calibration import Choice
from training.evaluation.fairness import Impact
from training.evaluation.limits import Part, compare, worst
from training.evaluation.metrics import Estimate
from training.evaluation.report import RankerScores
from training.study.study import Study

USER_METRIC, ITEM_METRIC = "ndcg@10", "recall@10"
NO_WINDOW = "no test window"
LEAST_NEW = 30  # people to judge cold start by
A_SELECTION = 0.5  # candidates that are more of the catalogue than this are hardly chosen


def study_checks(judged: Evaluation | None, policy: QualityPolicy, choice: Choice) -> list[Check]:
    """slices, fairness, calibration and cold_start, whatever is known of them."""
    if judged is None or judged.study is None or not judged.n_users:
        names = ("slices", "fairness", "calibration", "cold_start")
        return [Check(name=name, verdict="inconclusive", detail=NO_WINDOW, command=UNTIL) for name in names]
    return [
        within_limits(parts(judged, policy.slices), judged.study.lacking),
        fair(judged.study.impacts, policy.fairness),
        calibrated(judged.ranker, choice, policy.calibration),
        cold_start(judged.study),
    ]


def parts(judged: Evaluation, policy: SliceLimits) -> list[Part]:
    """Every slice of users by NDCG@10 and of items by recall@10 against the whole of the same metric."""
    funnel = judged.funnel
    users = {name: estimates[USER_METRIC] for name, estimates in funnel.slices.items()}
    items = {name: found[ITEM_METRIC] for name, found in (judged.study.items if judged.study else {}).items()}
    return [
        *compare(USER_METRIC, funnel.overall[USER_METRIC], users, policy),
        *compare(ITEM_METRIC, funnel.overall[ITEM_METRIC], items, policy),
    ]


def within_limits(found: Sequence[Part], lacking: Mapping[str, str] | None = None) -> Check:
    """`fail` if one slice is surely beyond its limit, `inconclusive` if one may be or has nobody in the test.

    lacking: what would be sliced by and is not → why.
    """
    failed = [part for part in found if part.verdict == "fail"]
    open_ = [part for part in found if part.verdict == "inconclusive"]
    empty = [part for part in open_ if not part.n]
    verdict: Verdict = "fail" if failed else "inconclusive" if open_ or not found else "pass"
    said = [f"{sum(part.verdict == 'pass' for part in found)} of {len(found)} slices within their limits"]
    low = worst(list(found))
    if low is not None:
        said.append(
            f"worst: {low.name} with {low.metric} {low.value:.4f} [{low.low:.4f}, {low.high:.4f}] of {low.n} users,"
            f" {low.value / max(low.whole, 1e-12):.0%} of the whole"
        )
    said += [f"{part.name} fails: {part.why}" for part in failed]
    if open_:
        said.append(f"{len(open_)} undecided" + (f", {len(empty)} of them with no event in the test" if empty else ""))
    lacking = lacking or {}
    for why in dict.fromkeys(lacking.values()):
        said.append(f"no slice by {', '.join(name for name in lacking if lacking[name] == why)}: {why}")
    figures = {"slices": float(len(found)), "failed": float(len(failed)), "undecided": float(len(open_))}
    if low is not None and low.whole > 0:
        figures["worst_share"] = low.value / low.whole
    return Check(name="slices", verdict=verdict, detail="; ".join(said), figures=figures, command=UNTIL, advisory=True)


def fair(impacts: Sequence[Impact], limits: FairnessLimits) -> Check:
    """Disparate impact against the limit. Not enforced, a ratio that is surely below it is for people to judge. The
    intervals are as wide as a set of so many asks for (training/evaluation/fairness.py)."""
    known = [impact for impact in impacts if np.isfinite(impact.ratio)]
    below = [impact for impact in known if impact.high < limits.disparate_impact]
    above = [impact for impact in known if impact.low >= limits.disparate_impact]
    verdict: Verdict = "pass" if known and len(above) == len(known) else "inconclusive"
    if below and limits.enforce:
        verdict = "fail"
    said = [
        f"{impact.what}: {impact.ratio:.2f} [{impact.low:.2f}, {impact.high:.2f}]"
        f" ({impact.least} over {impact.greatest})"
        for impact in known
    ]
    if below:
        rule = "by the policy a failure" if limits.enforce else "told, not enforced by the policy"
        said.append(f"{len(below)} surely below {limits.disparate_impact:g}: {rule}")
    return Check(
        name="fairness",
        verdict=verdict,
        detail="; ".join(said) or f"no two groups with {limits.least_users} users each",
        figures={f"ratio {impact.what}": impact.ratio for impact in known},
        command=UNTIL,
        advisory=True,
    )


def calibrated(ranker: RankerScores, choice: Choice, limits: CalibrationLimits) -> Check:
    """ECE on the test window against the base rate; and which calibration the validation rows chose, which serves."""
    positives = round(ranker.base_rate * ranker.n_rows) if ranker.n_rows else 0
    if positives < limits.least_positives:
        detail = f"{positives} positive candidates in the test window, of {limits.least_positives}"
        return Check(name="calibration", verdict="inconclusive", detail=detail, command=UNTIL)
    share = ranker.ece / ranker.base_rate
    return Check(
        name="calibration",
        verdict="pass" if share <= limits.ece_of_base_rate else "fail",
        detail=f"ECE {ranker.ece:.5f} on the test window, {share:.0%} of the base rate {ranker.base_rate:.4f}"
        f" (allowed {limits.ece_of_base_rate:.0%}); {choice.chosen} serves, by validation rows: {choice.why}",
        figures={"ece": ranker.ece, "ece_of_base_rate": share, **choice.figures},
        command=UNTIL,
    )


def cold_start(study: Study) -> Check:
    """New users against popularity, which is what they would get without any of this; new items by recall@500, against
    as many items drawn at random."""
    said, verdict = [], _cold_verdict(study)
    figures: dict[str, float] = {}
    for name, estimates in study.cold.setups.items():
        found = estimates["ndcg@10"]
        said.append(f"{name} {found.value:.4f} ± {found.se:.4f} of {found.n}")
        figures[f"ndcg@10 {name}"] = found.value
    users = f"{study.cold.found} new users, ndcg@10: " + ", ".join(said) if said else "no new user in the test window"
    new = study.items.get("item=cold (no event)", {})
    items = "no new item was wished for"
    if new and new["recall@500"].n:
        sources = {m.split(":")[1]: e.value for m, e in new.items() if ":" in m}
        best = max(sources, key=lambda name: sources[name], default="")
        items = (
            f"items without an event: recall@500 {new['recall@500'].value:.4f}, recall@10 {new['recall@10'].value:.4f}"
        )
        items += f" of {new['recall@500'].n} users" + (f", most by {best} ({sources[best]:.4f})" if best else "")
        if _below_chance(new["recall@500"], study.candidate_share):
            verdict = "fail"
            items += f", surely below the {study.candidate_share:.4f} that as many at random bring"
        figures |= {"new_items_recall@500": new["recall@500"].value, "new_items_recall@10": new["recall@10"].value}
    return Check(
        name="cold_start",
        verdict=verdict,
        detail=f"{users}; {items}",
        figures={name: value for name, value in figures.items() if np.isfinite(value)},
        command=UNTIL,
        advisory=True,
    )


def _cold_verdict(study: Study) -> Verdict:
    """Below popularity beyond two standard errors is a failure; level with it is not known."""
    setups = study.cold.setups
    pairs = [
        (ours, theirs)
        for ours, theirs in (
            ("context alone", "popularity"),
            ("after 3 wishes, with the session", "after 3 wishes, popularity"),
        )
        if ours in setups and theirs in setups
    ]
    verdict: Verdict = "pass" if pairs else "inconclusive"
    for ours, theirs in pairs:
        a, b = setups[ours]["ndcg@10"], setups[theirs]["ndcg@10"]
        noise = 2 * float(np.hypot(a.se, b.se))
        if a.n >= LEAST_NEW and a.value < b.value - noise:
            return "fail"
        if a.n < LEAST_NEW or not a.value > b.value + noise:
            verdict = "inconclusive"
    return verdict


def _below_chance(found: Estimate, share: float) -> bool:
    """Beyond two standard errors, of the figure or of a draw: no hit at all has no error of its own. share: of the
    catalogue that the candidates are."""
    if found.n < LEAST_NEW or not share <= A_SELECTION:
        return False
    return found.value + 2 * max(found.se, float(np.sqrt(share * (1 - share) / found.n))) < share
