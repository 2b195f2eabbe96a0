"""What must be known of a model version before it is released: the items, and the checks that answer each.

A check that a version's evidence lacks is no smaller a gap than one that is inconclusive: nobody looked.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

TRAIN = "streamrec train --data DIR"
UNTIL = f"{TRAIN} --until T"  # with a test window of its own
BUILD = "streamrec build"  # a Bento of the newest run's three models
CHECK = "streamrec models check BENTO-OR-MODEL"  # without a training: what can be measured or looked up at any time

RETRIEVAL, RANKING, FALLBACK = EVERY = ("streamrec-retrieval", "streamrec-ranking", "streamrec-fallback")
LEAKAGE = (
    "leakage",
    "leakage_ids",
    "leakage_duplicates",
    "leakage_overlap",
    "leakage_single_feature",
    "leakage_shuffled",
)


@dataclass(frozen=True, slots=True)
class Item:
    """One line of the checklist. checks: model → the names of the checks that answer it. command: what makes them.
    given: what stands before the command, as without it the checks never pass."""

    name: str
    what: str
    checks: dict[str, tuple[str, ...]] = field(hash=False)
    command: str
    given: str = ""

    @property
    def typed(self) -> str:
        """The command as a person types it."""
        return f"{self.given} {self.command}".lstrip()


CHECKLIST: tuple[Item, ...] = (
    Item("leakage", "no row, id or column tells of the future", dict.fromkeys(EVERY, LEAKAGE), TRAIN),
    Item(
        "baselines",
        "measured beside baselines of the same rows",
        {RETRIEVAL: ("union",), RANKING: ("metrics", "baselines")},
        TRAIN,
    ),
    Item("slices", "no group pays for the mean", {RANKING: ("slices", "fairness", "cold_start")}, TRAIN),
    Item(
        "parity",
        "serving computes what training did",
        {
            RETRIEVAL: ("artifacts", "parity", "export"),
            RANKING: ("artifacts", "parity", "export"),
            FALLBACK: ("artifacts", "parity"),
        },
        TRAIN,
    ),
    Item("calibration", "probabilities are probabilities", {RANKING: ("calibration",)}, TRAIN),
    Item("latency", "the exported files answer within their budget", dict.fromkeys(EVERY, ("latency",)), CHECK),
    Item("drift_baseline", "something to measure drift against", {RANKING: ("drift_baseline",)}, TRAIN),
    Item("rollback", "what people get when it is taken back", dict.fromkeys(EVERY, ("rollback",)), CHECK),
    Item(
        "escalation",
        "who is called, and what they do: [escalation] contact of the quality policy",
        dict.fromkeys(EVERY, ("escalation",)),
        CHECK,
        given="STREAMREC_QUALITY=quality.toml",
    ),
    Item("lineage", "data, code, seeds and environment are known", dict.fromkeys(EVERY, ("lineage",)), TRAIN),
)


def wanted(model: str) -> dict[str, Item]:
    """Check → its item, of everything that a version of `model` must carry. Empty for models that are not ours."""
    return {check: item for item in CHECKLIST for check in item.checks.get(model, ())}


def absent(model: str, there: Iterable[str]) -> dict[str, Item]:
    """The same of what is not `there`."""
    known = set(there)
    return {check: item for check, item in wanted(model).items() if check not in known}
