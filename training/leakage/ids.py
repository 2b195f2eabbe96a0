"""Does an id tell the outcome? Ids that were given in the order of what happened later are a leak in a name.

An id may go with popularity or age, which training knows anyway. So it is asked within groups that were about equally
active before the cut: there it should know nothing.
"""

import re
from collections.abc import Callable, Sequence

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from contracts.checklist import TRAIN
from contracts.evidence import Check, Verdict
from training.evaluation.metrics import auc, auc_se
from training.leakage.across import Across

FAIL_AUC, DOUBT_AUC = 0.90, 0.80
GROUPS = 10
LEAST = 20  # with and without the outcome, in all groups together
Z = 1.96

_DIGITS = re.compile(r"\d+")
PLACE = "its place in the file"

WAYS: dict[str, Callable[[Sequence[str]], NDArray[np.float64]]] = {
    "its number": lambda ids: np.array([float((_DIGITS.findall(i) or ["-1"])[-1][-15:]) for i in ids]),
    "its length": lambda ids: np.array([float(len(i)) for i in ids]),
    "its place in the alphabet": lambda ids: np.argsort(np.argsort(np.array(ids, dtype=np.str_))).astype(np.float64),
    PLACE: lambda ids: np.arange(len(ids), dtype=np.float64),
}


def told_by_ids(
    ids: Sequence[str], outcome: NDArray[np.bool_], activity: NDArray[np.int64], *, in_file: bool = True
) -> dict[str, tuple[float, float]]:
    """Way of reading an id → (AUC for the outcome within groups of like activity, at least a half; its error).

    ids in the order of their file; outcome, activity: aligned. in_file: there is one; the order of the log is not asked
    about, as it is that of time, which training knows. Empty where too few have the outcome, or too few have it not.
    """
    if min(int(outcome.sum()), int((~outcome).sum())) < LEAST:
        return {}
    edges = np.unique(np.quantile(activity, np.linspace(0, 1, GROUPS + 1)[1:-1]))
    group = np.searchsorted(edges, activity)
    told = {}
    for name, read in WAYS.items():
        if name == PLACE and not in_file:
            continue
        values = read(ids)
        if len(np.unique(values)) < 2:
            continue
        total, weight, variance = 0.0, 0.0, 0.0
        for number in np.unique(group):
            inside = group == number
            yes, no = int(outcome[inside].sum()), int((~outcome[inside]).sum())
            if not yes or not no:
                continue
            found, pairs = auc(values[inside], outcome[inside].astype(np.int8)), float(yes * no)
            total, weight = total + pairs * found, weight + pairs
            variance += (pairs * auc_se(found, yes, no)) ** 2
        if weight:
            told[name] = (0.5 + abs(total / weight - 0.5), float(np.sqrt(variance)) / weight)
    return told


def ids_tell_nothing(rows: Across) -> Check:
    """Item ids against being taken up in the window, user ids against coming back in it."""
    figures: dict[str, float] = {}
    verdict: Verdict = "pass"
    said = []
    for what, column in (("item", "item_id"), ("user", "user_id")):
        counted = rows.before.group_by(column).aggregate([("event", "count")])
        known = dict(zip(counted[column].to_pylist(), counted["event_count"].to_pylist(), strict=True))
        listed = rows.items["item_id"].to_pylist() if what == "item" else rows.user_ids
        others = sorted(known) if what == "user" else []  # who is not in the file comes after it, by name
        ids = [name for name in dict.fromkeys([*listed, *others]) if name in known]
        hit = set(pc.unique(rows.after.filter(rows.after["positive"])[column]).to_pylist())
        came, active = np.array([i in hit for i in ids], bool), np.array([known[i] for i in ids], np.int64)
        told = told_by_ids(ids, came, active, in_file=bool(len(listed)))
        if not told:
            said.append(f"{what} ids: too few on one side to tell")
            verdict = "inconclusive" if verdict == "pass" else verdict
            continue
        way = max(told, key=lambda name: told[name][0])
        value, error = told[way]
        figures[f"{what}_id_auc"] = value
        said.append(f"{what} ids by {way} tell with an AUC of {value:.3f} ± {Z * error:.3f}")
        if value - Z * error > FAIL_AUC:
            verdict = "fail"
        elif value > DOUBT_AUC and verdict == "pass":
            verdict = "inconclusive"
    return Check(
        name="leakage_ids",
        verdict=verdict,
        detail="; ".join(said) + f" (fails above {FAIL_AUC:g}, in doubt above {DOUBT_AUC:g})",
        figures=figures,
        command=TRAIN,
    )
