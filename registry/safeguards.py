"""What stands ready for the day on which a release goes wrong: what people get instead, and who is called."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from contracts.checklist import CHECK
from contracts.errors import ArtifactError, NotFound
from contracts.evidence import Check, Verdict
from contracts.quality import Escalation
from registry.artifacts import KINDS, Bundle, Kind, verify
from registry.environment import code_root
from registry.models import Registry
from registry.versions import CHAMPION, ModelVersion

POPULARITY = "popularity.npy"


def safeguard_checks(
    registry: Registry,
    fallback: Bundle,
    escalation: Escalation,
    versions: Mapping[Kind, ModelVersion] | None = None,
) -> dict[Kind, list[Check]]:
    """`rollback` and `escalation` of each kind. versions: those asked about; None before they have a number."""
    called = escalation_check(escalation)
    listed = _listed(fallback)
    return {
        kind: [rollback_check(*_back(registry, kind, versions[kind].number if versions else None), listed), called]
        for kind in KINDS
    }


def rollback_check(back: ModelVersion | None, lost: str, listed: int) -> Check:
    """back: the champion that a rollback would bring back. lost: why it could not, which fails: what people get below
    it is no way back. listed: items of the popularity list, the rung that answers when nothing else does, first
    release or not."""
    verdict: Verdict = "fail" if lost else "pass" if back is not None or listed else "inconclusive"
    said = []
    if back is not None:
        said.append(f"`streamrec release rollback` goes back to {back.uri}, {CHAMPION} when this was written")
    else:
        said.append(lost or "no other version is champion: a first release has nothing to go back to")
    said.append(f"below it the rung `popularity` answers, {listed} items" if listed else "there is no popularity list")
    return Check(
        name="rollback",
        verdict=verdict,
        detail="; ".join(said),
        figures={"popularity_items": float(listed)},
        command=CHECK,
    )


def escalation_check(escalation: Escalation, root: Path | None = None) -> Check:
    """A person who can be reached, and a runbook that is there. A role alone, as in the default policy, is nobody."""
    runbook = escalation.runbook
    there = runbook.startswith("https://") or ((root or code_root()) / runbook).is_file()
    contact = escalation.contact.strip()
    who = f"{escalation.owner}, {contact or 'a role: name a person under [escalation] contact of the quality policy'}"
    return Check(
        name="escalation",
        verdict="pass" if there and contact else "inconclusive",
        detail=f"{who}; {runbook}" + ("" if there else " is not there"),
        command=CHECK,
    )


def _back(registry: Registry, kind: Kind, mine: int | None) -> tuple[ModelVersion | None, str]:
    """The champion of this kind unless it is `mine`, and why it could not be had: its files are gone or damaged."""
    champion = next((version for version in registry.versions(kind) if CHAMPION in version.aliases), None)
    if champion is None or champion.number == mine:
        return None, ""
    try:
        wrong = "; ".join(verify(registry.bundle(champion)))
    except (ArtifactError, NotFound) as error:
        wrong = error.message
    if wrong:
        return None, f"{champion.uri}, {CHAMPION}, cannot come back until its files are restored: {wrong}"
    return champion, ""


def _listed(fallback: Bundle) -> int:
    path = fallback.folder / POPULARITY
    return len(np.load(path, mmap_mode="r")) if path.is_file() else 0
