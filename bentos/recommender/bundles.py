"""Which three folders a process serves: those that the loaded Bento pins, or those under STREAMREC_BUNDLES."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import bentoml

from registry.artifacts import KINDS, Kind, model_name

UNPINNED = "unpinned"


@dataclass(frozen=True, slots=True)
class Pinned:
    """folders: None where there is none. versions: for answers and exposures (`v3-1a2b3c4d`)."""

    folders: Mapping[Kind, Path | None]
    versions: Mapping[Kind, str]
    problems: Mapping[Kind, str]
    bento: str = "unbuilt"


def pinned(bento: Any | None, override: Path | None = None) -> Pinned:
    """A missing model is a problem to report, not an error: a process starts with what there is.

    `bento`: the `bentoml.Bento` that BentoML loaded, None in a checkout; there the newest models of the store serve.
    Asking the store for `latest` inside a Bento would give the newest, not the pinned one, so the tags come from
    bento.yaml.
    """
    tag = str(bento.tag) if bento is not None else "unbuilt"
    if override is not None:
        found: dict[Kind, Path | None] = {k: (override / k if (override / k).is_dir() else None) for k in KINDS}
        problems = {k: f"{override / k} is not there" for k, path in found.items() if path is None}
        return Pinned(found, dict.fromkeys(KINDS, UNPINNED), problems, tag)
    tags = {info.tag.name: str(info.tag) for info in bento.info.all_models} if bento is not None else {}
    folders: dict[Kind, Path | None] = {}
    versions: dict[Kind, str] = {}
    problems = {}
    for kind in KINDS:
        name = model_name(kind)
        wanted = tags.get(name, "" if bento is not None else f"{name}:latest")
        folders[kind], versions[kind] = None, ""
        if not wanted:
            problems[kind] = f"{tag} pins no {name}"
            continue
        try:
            model = bentoml.models.get(wanted)
        except bentoml.exceptions.BentoMLException as error:
            problems[kind] = f"{wanted} is not in the model store: {error}"
            continue
        folders[kind], versions[kind] = Path(model.path), str(model.tag.version)
    return Pinned(folders, versions, problems, tag)
