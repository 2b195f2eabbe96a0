"""Reads the reference of a model version: what its drift and skew are measured against."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pydantic import ValidationError

from contracts.errors import ArtifactError, NotFound, UsageError
from contracts.settings import Settings
from features.summaries import Summary
from registry.bento_store import stored_bento
from registry.lineage import as_model, pinned_uris
from registry.models import Registry
from registry.reference import DIGEST_TAG, EMBEDDINGS, FILES, FOLDER, IMPORTANCE, ROWS, SCHEMA, STATISTICS, digest_of

_AGAIN = "streamrec train --data DIR"


@dataclass(frozen=True)
class Reference:
    """One model version's past. run_id: of the training; model: `models:/streamrec-ranking/N`, empty for a bare run.
    users: whom the summaries' rows are of.

    summaries: feature → as it was in training; unread: features that the ranker does not read, as they were constant
    when it learned; importance: feature → AUC lost without it, empty where that is not known.
    """

    folder: Path
    run_id: str
    model: str
    origin: str
    feature_hash: str
    row_signature: str
    snapshot: str
    trained_until_us: int
    users: int
    summaries: Mapping[str, Summary]
    unread: frozenset[str]
    importance: Mapping[str, float]

    @cached_property
    def rows(self) -> pa.Table:
        """Everything in `rows.parquet` (`registry/reference.py`)."""
        try:
            return pq.read_table(self.folder / ROWS)
        except (OSError, pa.ArrowException) as error:
            raise ArtifactError(f"{self.folder / ROWS} cannot be read: {error}", next_command=_AGAIN) from error

    @property
    def shown(self) -> pa.Table:
        """The rows that compare with a serving frame: of slates; of candidates where training had no test window."""
        rows = self.rows
        return rows.filter(pc.equal(rows["origin"], self.origin)) if rows.num_rows else rows

    @cached_property
    def embeddings(self) -> Mapping[str, NDArray[np.generic]]:
        """item_ids, items float32 [n, 128], user_ids, users float32 [m, 128]; empty without a two-tower model."""
        try:
            with np.load(self.folder / EMBEDDINGS, allow_pickle=False) as file:
                return {name: file[name] for name in file.files}
        except (OSError, ValueError) as error:
            raise ArtifactError(f"{self.folder / EMBEDDINGS} cannot be read: {error}", next_command=_AGAIN) from error


def load_reference(home: Path, bento_or_run: str | None = None, *, settings: Settings | None = None) -> Reference:
    """The reference of a Bento's ranker (`None`: the latest built), of a model version, or of a training run by its id.

    Raises:
        NotFound: no such Bento, version or run, or it was trained before references were kept.
        ArtifactError: it is not whole, or not what was registered.
    """
    settings = settings or Settings(home=home)
    registry = Registry.open(settings)
    run_id, model, digest = _which(bento_or_run, registry, settings)
    folder = registry.run_folder(run_id, FOLDER)
    if folder is None:
        raise NotFound(f"run {run_id} kept no reference to measure drift against", next_command=_AGAIN)
    missing = [name for name in FILES if not (folder / name).exists()]
    if missing:
        raise ArtifactError(f"the reference of run {run_id} lacks {', '.join(missing)}", next_command=_AGAIN)
    if digest and digest_of(folder) != digest:
        raise ArtifactError(f"{folder} is not the reference that {model} was registered with", next_command=_AGAIN)
    return read_reference(folder, run_id, model)


def read_reference(folder: Path, run_id: str = "", model: str = "") -> Reference:
    """A reference that lies in a folder.

    Raises:
        ArtifactError: not a reference, or of a schema that this code does not know.
    """
    try:
        statistics = json.loads((folder / STATISTICS).read_bytes())
        if statistics["schema"] != SCHEMA:
            raise ArtifactError(f"{folder} has schema {statistics['schema']}, this version reads {SCHEMA}")
        features = statistics["features"]
        unread = frozenset(name for name, said in features.items() if not said["read_by_ranker"])
        summaries = {
            name: Summary.model_validate({k: v for k, v in said.items() if k != "read_by_ranker"})
            for name, said in features.items()
            if "n" in said
        }
        importance = {str(k): float(v) for k, v in json.loads((folder / IMPORTANCE).read_bytes()).items()}
        return Reference(
            folder,
            run_id,
            model,
            statistics["origin"],
            statistics["feature_hash"],
            statistics["row_signature"],
            statistics["snapshot"],
            int(statistics["trained_until_us"]),
            int(statistics["users"]),
            summaries,
            unread,
            importance,
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, ValidationError) as error:
        raise ArtifactError(f"{folder} is no reference: {error}", next_command=_AGAIN) from error


def _which(what: str | None, registry: Registry, settings: Settings) -> tuple[str, str, str]:
    """(run id, model, digest of its reference)."""
    if what is not None and len(what) == 32 and set(what) <= set("0123456789abcdef"):
        return what, "", ""
    ref = as_model(what) if what is not None else None
    if ref is None:
        bento = stored_bento(what, settings.home)
        uri = pinned_uris(bento)["ranking"]
        if not uri:
            raise NotFound(f"{bento.tag} does not say which ranker it has", next_command="streamrec models list")
        version = registry.resolve(uri)
    elif ref.kind != "ranking":
        raise UsageError(f"{ref} is no ranker; what was read of features is kept with the ranking model")
    else:
        version = registry.resolve(ref)
    return version.run_id, version.uri, version.tags.get(DIGEST_TAG, "")
