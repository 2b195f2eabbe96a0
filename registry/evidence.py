"""The evidence that a model version carries: made at registration, joined by later checks, read by gates."""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from pydantic import ValidationError

from contracts.checklist import BUILD, CHECKLIST
from contracts.errors import ArtifactError
from contracts.evidence import Check, Evidence, Verdict

EVIDENCE = "evidence.json"
MISSING = "missing"
ONE_RUN = "one_run"
WORST_FIRST = ("fail", MISSING, "inconclusive", "pass")


def document(model: str, run_id: str, checks: Iterable[Check], context: Mapping[str, Any] | None = None) -> Evidence:
    return Evidence(
        model=model,
        run_id=run_id,
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        checks=_unique(checks),
        context=dict(context or {}),
    )


def merged(evidence: Evidence, checks: Iterable[Check]) -> Evidence:
    """`evidence` with `checks` added; a check of the same name is replaced, in its place."""
    return evidence.model_copy(update={"checks": _unique([*evidence.checks, *checks])})


def parse(text: str | bytes, where: str) -> Evidence:
    """
    Raises:
        ArtifactError: not a document of evidence, or of a schema that this code does not read.
    """
    try:
        return Evidence.model_validate_json(text)
    except ValidationError as error:
        problems = "; ".join(f"`{'.'.join(map(str, e['loc']))}`: {e['msg']}" for e in error.errors()[:5])
        raise ArtifactError(f"{where} is not evidence that this version reads: {problems}") from error


def joint_readiness(documents: Iterable[Evidence | None]) -> Verdict:
    """Readiness of models that serve together: the worst of theirs, and whether they are of one run. No document:
    nothing is known."""
    known = list(documents)
    verdicts: list[Verdict] = [one_run(known).verdict, *(d.readiness if d else "inconclusive" for d in known)]
    if "fail" in verdicts:
        return "fail"
    return "pass" if set(verdicts) == {"pass"} else "inconclusive"


def one_run(documents: Iterable[Evidence | None]) -> Check:
    """Whether models that serve together earned their evidence together. Those of several runs may fit one another by
    their hashes, but what each run measured, it measured beside other partners. Of a Bento, so that no version has it.
    """
    models: dict[str, list[str]] = {}
    for evidence in documents:
        if evidence is not None:
            models.setdefault(evidence.run_id, []).append(evidence.model)
    said = [f"run {run[:8]}: {', '.join(names)}" for run, names in models.items()]
    if len(models) > 1:
        said.append("each has its evidence from beside other models")
    return Check(
        name=ONE_RUN,
        verdict="pass" if len(models) == 1 else "inconclusive",
        detail="; ".join(said) or "no evidence of any run",
        command=BUILD,
    )


def item_verdicts(documents: Mapping[str, Evidence | None]) -> dict[str, str]:
    """Item of the checklist → the worst verdict that any of the models (name → its document) has on it; `missing` where
    one was never checked, which is worse than all but `fail`. With them `one_run`, which is of all three."""
    found = {}
    for item in CHECKLIST:
        verdicts = set()
        for model, evidence in documents.items():
            there = {check.name: check.verdict for check in evidence.checks} if evidence else {}
            verdicts |= {there.get(name, MISSING) for name in item.checks.get(model, ())}
        found[item.name] = next((word for word in WORST_FIRST if word in verdicts), MISSING)
    found[ONE_RUN] = one_run(documents.values()).verdict if all(documents.values()) else MISSING
    return found


def _unique(checks: Iterable[Check]) -> tuple[Check, ...]:
    """One check a name: the last, at the place of the first."""
    return tuple({check.name: check for check in checks}.values())
