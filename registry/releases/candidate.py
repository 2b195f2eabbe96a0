"""May this Bento be a candidate? It is built here (or runs where the settings say), and its models carry evidence."""

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from contracts.checklist import CHECKLIST, TRAIN, Item, absent, wanted
from contracts.errors import ArtifactError, NotFound, Refused, StreamRecError, Unreachable
from contracts.evidence import Check, Evidence
from contracts.settings import Settings, load_settings
from registry.artifacts import KINDS, Kind, model_name
from registry.bento_store import stored_bento
from registry.evidence import one_run
from registry.hiding import demand_hiding

Documents = Mapping[Kind, Evidence | None]
PROCESS_TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True)
class Missing:
    """One thing that a candidate's evidence lacks."""

    what: str
    command: str
    verdict: Literal["fail", "inconclusive", "none"]

    def __str__(self) -> str:
        return f"{self.what} → {self.command}"


def known_tag(tag: str, settings: Settings) -> str:
    """The full tag.

    Raises:
        NotFound: nobody could start it here, with the next command. Refused: it cannot hide users where they are.
    """
    if settings.driver == "static":
        if tag in settings.upstreams:
            return tag
        listed = ", ".join(sorted(settings.upstreams)) or "nothing"
        raise NotFound(
            f"`upstreams` in the settings has no {tag}, only {listed}",
            next_command=f"add {tag} with its URLs to `upstreams` in streamrec.toml",
        )
    bento = stored_bento(tag, settings.home)
    demand_hiding(bento, settings)
    return bento.tag


def read_evidence(tag: str, settings: Settings) -> Documents:
    """Of the model versions that the Bento is pinned to; None where a version has no document or is not known.

    Imports MLflow: seconds, and hundreds of megabytes.

    Raises:
        Unreachable: MLflow does not answer.
    """
    try:
        labels = stored_bento(tag, settings.home).labels
    except NotFound:
        return dict.fromkeys(KINDS)
    uris = {kind: labels.get(f"mlflow.{kind}") for kind in KINDS}
    if not any(uris.values()):
        return dict.fromkeys(KINDS)
    from registry.models import Registry

    registry = Registry.open(settings)
    found: dict[Kind, Evidence | None] = {}
    for kind, uri in uris.items():
        try:
            found[kind] = registry.evidence(registry.resolve(uri, kind)) if uri else None
        except (NotFound, ArtifactError):  # the version or its files are gone: nothing is known
            found[kind] = None
    return found


def read_evidence_in_a_process(tag: str, settings: Settings) -> Documents:
    """The same, for a process that stays and does not carry MLflow.

    Raises:
        Unreachable: MLflow does not answer, or not in time.
    """
    argv = (sys.executable, "-m", "registry.releases.candidate", tag)
    try:
        done = subprocess.run(argv, capture_output=True, timeout=PROCESS_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired as error:
        raise Unreachable(f"the evidence of {tag} could not be read within {PROCESS_TIMEOUT_S:g} s") from error
    if done.returncode:
        words = done.stderr.decode(errors="replace").strip().splitlines()
        raise Unreachable(f"the evidence of {tag} could not be read: {words[-1] if words else done.returncode}")
    document = json.loads(done.stdout)
    return {kind: Evidence.model_validate(document[kind]) if document[kind] else None for kind in KINDS}


def missing(documents: Documents, tag: str = "latest") -> list[Missing]:
    """All that a release waits for, with the command that makes it: checks that hold it up, models of several runs,
    and items of the checklist that nobody looked at, as in versions of an older day and in bundles that were made
    without a training."""
    found = []
    alike: dict[tuple[str, str], tuple[Check, list[Kind]]] = {}  # what holds up several models alike is one line
    for kind in KINDS:
        evidence = documents.get(kind)
        if evidence is None:
            found.append(Missing(f"{kind}: no evidence at all", TRAIN, "none"))
            continue
        for check in evidence.checks:
            if check.holds_up:
                alike.setdefault((check.name, check.detail), (check, []))[1].append(kind)
    found += [_missing(kinds, check, tag) for check, kinds in alike.values()]
    together = one_run(documents.values())
    if together.holds_up and any(documents.values()):  # without any it was said
        found.append(Missing(f"{together.name}: {together.detail}", together.command or TRAIN, "inconclusive"))
    return found + _never_checked(documents, tag)


def _never_checked(documents: Documents, tag: str) -> list[Missing]:
    """One an item, whatever number of the models and checks it is of."""
    kinds: dict[Item, list[str]] = {}
    names: dict[Item, dict[str, None]] = {}
    for kind in KINDS:
        evidence = documents.get(kind)
        if evidence is None:
            continue
        for name, item in absent(model_name(kind), (check.name for check in evidence.checks)).items():
            names.setdefault(item, {})[name] = None
            if kind not in kinds.setdefault(item, []):
                kinds[item].append(kind)
    return [
        Missing(
            f"{', '.join(kinds[item])}: never checked: {item.name} ({item.what})"
            + ("" if len(names[item]) == 1 else f": {', '.join(names[item])}"),
            _of(item.typed, tag),
            "none",
        )
        for item in CHECKLIST
        if item in kinds
    ]


def demand_evidence(tag: str, documents: Documents, *, accept_inconclusive: bool) -> list[Missing]:
    """What was accepted as inconclusive.

    Raises:
        Refused: a document is missing, a check failed, or one is inconclusive and nobody accepted that; lists them all.
    """
    lacking = missing(documents, tag)
    hard = [m for m in lacking if m.verdict != "inconclusive"]
    if not lacking or (accept_inconclusive and not hard):
        return lacking
    listed = "".join(f"\n  [{m.verdict}] {m}" for m in lacking)
    only_soft = "" if hard else "\n(an `inconclusive` one may be taken on your word with --accept-inconclusive)"
    raise Refused(
        f"{tag} has not the evidence that its policy requires:{listed}{only_soft}",
        next_command=(hard or lacking)[0].command,
    )


def _missing(kinds: Sequence[Kind], check: Check, tag: str) -> Missing:
    verdict: Literal["fail", "inconclusive"] = "fail" if check.verdict == "fail" else "inconclusive"
    item = wanted(model_name(kinds[0])).get(check.name)
    command = item.typed if item and item.given else check.command or TRAIN
    return Missing(f"{', '.join(kinds)}: {check.name}: {check.detail}", _of(command, tag), verdict)


def _of(command: str, tag: str) -> str:
    """The command for this very Bento."""
    return command.replace("BENTO-OR-MODEL", tag)


if __name__ == "__main__":
    try:
        found = read_evidence(sys.argv[1], load_settings())
        print(json.dumps({kind: e.model_dump(mode="json") if e else None for kind, e in found.items()}))
    except StreamRecError as error:
        print(error.message, file=sys.stderr)
        sys.exit(error.exit_code)
