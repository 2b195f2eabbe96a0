"""From a Bento or a model version back to runs, data and code."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import yaml

from contracts.errors import NotFound, UsageError
from contracts.settings import Settings
from registry.artifacts import KINDS, Kind
from registry.bento_store import StoredBento, stored_bento
from registry.models import Registry
from registry.reference import DIGEST_TAG
from registry.registration import FRAMING_TAG
from registry.versions import KIND_OF, ModelRef, ModelVersion, parse_ref

SNAPSHOTS = "snapshots"  # under `home`: the rows that trainings used, by content

_STORE_TAG = re.compile(r"^(?P<name>[\w.-]+):v(?P<number>\d+)-[0-9a-f]{8}$")


@dataclass(frozen=True, slots=True)
class Node:
    """A step of the walk: Bento → models → run → data and code."""

    kind: Literal["bento", "model", "run", "data", "code"]
    name: str
    facts: Mapping[str, str]
    children: tuple["Node", ...] = field(default=())

    def document(self) -> dict[str, Any]:
        """The tree as JSON."""
        return {
            "kind": self.kind,
            "name": self.name,
            "facts": dict(self.facts),
            "children": [child.document() for child in self.children],
        }


def lineage(reference: str, registry: Registry, settings: Settings) -> Node:
    """`reference`: a Bento tag (or `latest`), a model reference, or a model's tag in the Bento store.

    Raises:
        NotFound: there is no such Bento, version or alias.
    """
    ref = as_model(reference)
    if ref is not None:
        return _model(registry.resolve(ref), registry, settings)
    return _bento(stored_bento(reference, settings.home), registry, settings)


def trio(reference: str, registry: Registry, settings: Settings) -> dict[Kind, ModelVersion]:
    """The three versions that serve together: a Bento's, or those that were registered in the run of a model.

    Raises:
        NotFound: there is no such Bento, version or alias, or one of the three is gone.
    """
    ref = as_model(reference)
    if ref is None:
        uris = pinned_uris(stored_bento(reference, settings.home))
        return {kind: registry.resolve(uri, kind) for kind, uri in uris.items()}
    version = registry.resolve(ref)
    found = {k: next((v for v in registry.versions(k) if v.run_id == version.run_id), None) for k in KINDS}
    if lost := [kind for kind, one in found.items() if one is None]:
        raise NotFound(
            f"the run of {version.uri} has no {', '.join(lost)} model in the registry",
            next_command="streamrec models list",
        )
    return {kind: one for kind, one in found.items() if one is not None}


def as_model(reference: str) -> ModelRef | None:
    """The model that `reference` names; None when it is a Bento's tag."""
    if match := _STORE_TAG.match(reference):
        kind = KIND_OF.get(match["name"])
        return ModelRef(kind, None, int(match["number"])) if kind else None
    try:
        return parse_ref(reference)
    except UsageError:
        if reference.startswith("models:/") or "@" in reference or reference in KIND_OF:
            raise
        return None


def pinned_uris(bento: StoredBento) -> dict[Kind, str]:
    """Kind → MLflow URI, from the models themselves: also right for a Bento that stock `bentoml build` made."""
    uris: dict[Kind, str] = {}
    for kind in KINDS:
        stored = bento.models.get(kind)
        if stored and (stored[1] / "model.yaml").exists():
            metadata = yaml.safe_load((stored[1] / "model.yaml").read_text()).get("metadata") or {}
            if metadata.get("mlflow_uri"):
                uris[kind] = str(metadata["mlflow_uri"])
        uris.setdefault(kind, bento.labels.get(f"mlflow.{kind}", ""))
    return uris


def _bento(bento: StoredBento, registry: Registry, settings: Settings) -> Node:
    children = []
    for kind, uri in pinned_uris(bento).items():
        stored = bento.models[kind][0] if kind in bento.models else "none"
        try:
            node = _model(registry.resolve(uri), registry, settings)
        except (NotFound, UsageError):
            node = Node("model", uri or kind, {"registered": "no longer"})
        children.append(Node("model", node.name, {"stored_as": stored, **node.facts}, node.children))
    keys = ("git_commit", "git_dirty", "code_digest", "feature_hash", "readiness", "device")
    facts = {
        "built": bento.created.isoformat(timespec="seconds"),
        "services": ", ".join(bento.services),
        **{key: bento.labels[key] for key in keys if key in bento.labels},
    }
    return Node("bento", bento.tag, facts, tuple(children))


def _model(version: ModelVersion, registry: Registry, settings: Settings) -> Node:
    evidence = registry.evidence(version)
    facts = {
        "aliases": ", ".join(version.aliases),
        "readiness": evidence.readiness if evidence else "inconclusive",
        "evidence": ", ".join(f"{check.name} {check.verdict}" for check in evidence.checks) if evidence else "none",
        **{
            key: version.tags[key]
            for key in (
                "feature_hash",
                "catalogue_hash",
                "evaluation",
                "baselines_beaten",
                "manifest_sha256",
                DIGEST_TAG,
                FRAMING_TAG,
            )
            if version.tags.get(key)
        },
    }
    return Node("model", version.uri, facts, (_run(version, registry, settings),))


def _run(version: ModelVersion, registry: Registry, settings: Settings) -> Node:
    tags = version.tags
    try:
        run = registry.run_facts(version.run_id)
    except NotFound:
        return Node("run", version.run_id, {"status": "deleted"}, (_code(tags),))
    data = [
        Node(
            "data",
            entry["name"],
            {
                "sha256": entry["sha256"],
                "rows_kept": "yes" if (settings.home / SNAPSHOTS / entry["sha256"]).is_dir() else "no",
                "imported_from": entry["imported_from"],
            },
        )
        for entry in run.data
    ]
    if not data and tags.get("data_digest"):
        kept = (settings.home / SNAPSHOTS / tags["data_digest"]).is_dir()
        data = [
            Node(
                "data",
                tags.get("data_name", ""),
                {
                    "sha256": tags["data_digest"],
                    "rows_kept": "yes" if kept else "no",
                    "imported_from": tags.get("data_source", ""),
                },
            )
        ]
    facts = {
        "name": run.name,
        "status": run.status,
        "seeds": tags.get("seeds", ""),
        "until_us": tags.get("until_us") or "the end of the log",
        "environment": tags.get("environment_digest", ""),
    }
    return Node("run", run.run_id, facts, (*data, _code(tags)))


def _code(tags: Mapping[str, str]) -> Node:
    facts = {"digest": tags.get("code_digest", ""), "working_tree": "clean"}
    if tags.get("git_dirty") != "false":
        facts["working_tree"] = "changed"
        facts["sources"] = "code/sources.tar.gz of the run"
    return Node("code", tags.get("git_commit", "unknown"), facts)
