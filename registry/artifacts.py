"""Bundles: a folder of ONNX, NumPy, Arrow, FAISS and JSON files with a manifest of checksums. No pickles.

Three kinds, each one registered model version (N items, U users, D = 128, C categories):

retrieval
    items.arrow              the catalogue, row i is item i: item_id, category (int32 into vocab), creator (int32, -1
                             none), price (float32, NaN unknown), published_at (timestamp[us, UTC]), is_promoted,
                             is_flagged (bool)
    vocab.json               {"category": [...], "creator": [...], "attributes": {column: [values]}}; index 0 of an
                             attribute's list is "" (unknown)
    item_ids.npy, item_rows.npy, user_ids.npy, user_rows.npy      `IdIndex`
    two_tower.onnx           history int64 [B, 10] (item row + 1, newest first, 0 pads), history_age_h float32
                             [B, 10], attributes int64 [B, A] (user row + 1 first, then vocab indices in the order of
                             manifest.params["attributes"]) → embedding float32 [B, D], unit length
    user_attributes.npy      int32 [U, A - 1], vocab indices of each user's own attributes, 0 unknown
    item_embeddings.npy      float32 [N, D], unit length
    items.faiss              inner-product index over item_embeddings
    graph_users.npy, graph_items.npy        LightGCN, float32 [U, G], [N, G]
    content_users.npy        float32 [U, C], posterior mean share of each category
    content_prior.npy        float32 [C], the same for a user who is new
    content_items.npy        float32 [N], standing of an item within its category
    trending.npy             float32 [N], decayed count at trained_until
    seen_indptr.npy, seen_items.npy         int64 [U + 1], int32: items each user has met (CSR)
    seen_at_us.npy           int64, aligned with seen_items: when each was last taken up
    item_item_indptr.npy, item_item_items.npy, item_item_weights.npy
                             int64 [N + 1], int32, float32: linear item-item weights (CSR), applied to a history with
                             manifest.params["item_item_half_life_d"]; these and seen_at_us together, or not at all
    item_features.npy        float32 [N, S], columns named by manifest.params["item_features"]: the item features of
                             the registry (`item_ctr_7d`, …) and static popularity columns, as of trained_until
    creator_exposure.npy     float32 [number of creators], share of impressions or interactions
ranking
    R.S                      the model manifest.params["ranker"] (linear, trees, dcn or ensemble) in
                             manifest.params["format"], one of bentos/recommender/rankers/formats.py, with its suffix S:
                             rows float32 [R, F] → calibrated probability float32 [R], by isotonic steps where
                             manifest.params["calibration"] says so. Older bundles name neither: dcn.onnx
    dcn_fast.onnx            DCN-V2 for CPUs, rows float32 [R, F], user float32 [1 or R, F] → score float32 [R]: folded,
                             in float32 or int8 as manifest.params["fast"] says; other rankers have none
    schema.json              the ordered columns of a row: features/ranking.py
fallback
    logistic.npz             mean, scale, weights float32 [F], bias: the light ranker over the same rows
    schema.json              as above
    popularity.npy           int32, item rows best first
    popularity_by_country.json   {country: [item rows]}
    slate.json               {"item_ids": [...], "scores": [...]}, the static last resort
"""

import hashlib
import json
import shutil
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import msgspec

from contracts.errors import ArtifactError

Kind = Literal["retrieval", "ranking", "fallback"]
KINDS: tuple[Kind, ...] = ("retrieval", "ranking", "fallback")
MANIFEST = "manifest.json"
BUNDLE_SCHEMA = 1
FAST_RANKER = "dcn_fast.onnx"


def model_name(kind: Kind) -> str:
    """Name in MLflow and in the Bento model store."""
    return f"streamrec-{kind}"


class Manifest(msgspec.Struct, frozen=True):
    """What a bundle is and what it fits.

    Bundles fit one another when `feature_hash`, `catalogue_hash` and `signature` agree: `fit_problems`.
    """

    kind: Kind
    files: dict[str, str]  # name → SHA-256
    feature_hash: str  # of the feature definitions (features/registry.py)
    catalogue_hash: str  # SHA-256 over the item ids in row order
    signature: str  # SHA-256 over the ranker's ordered columns; retrieval: those that it was trained beside
    n_items: int
    trained_until_us: int
    clock: Literal["wall", "log_end"]
    log_end_us: int
    params: dict[str, Any] = {}
    schema: int = BUNDLE_SCHEMA


@dataclass(frozen=True, slots=True)
class Bundle:
    folder: Path
    manifest: Manifest
    damaged: frozenset[str] = frozenset()  # files that are known not to be what was sealed

    def path(self, name: str) -> Path:
        """
        Raises:
            ArtifactError: the bundle has no such file, or it is damaged.
        """
        path = self.folder / name
        if not path.exists():
            raise ArtifactError(f"{self.manifest.kind} bundle {self.folder} lacks {name}")
        if name in self.damaged:
            raise ArtifactError(f"{self.manifest.kind} bundle {self.folder}: {name} does not match its checksum")
        return path

    def json(self, name: str) -> Any:
        return json.loads(self.path(name).read_text())


def catalogue_hash(item_ids: Sequence[str]) -> str:
    digest = hashlib.sha256()
    for item_id in item_ids:
        digest.update(item_id.encode() + b"\0")
    return digest.hexdigest()


def sha256_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def seal(folder: Path, **fields: Any) -> Bundle:
    """Hash every file in `folder` and write its manifest, last and by rename. `fields`: those of `Manifest`."""
    files = {
        str(p.relative_to(folder)): sha256_file(p)
        for p in sorted(folder.rglob("*"))
        if p.is_file() and p.name != MANIFEST
    }
    manifest = Manifest(files=files, **fields)
    part = folder / (MANIFEST + ".part")
    part.write_bytes(msgspec.json.format(msgspec.json.encode(manifest)))
    part.rename(folder / MANIFEST)
    return Bundle(folder, manifest)


def open_bundle(folder: Path, kind: Kind) -> Bundle:
    """Read the manifest. Checksums are `verify`'s business: a start must not read gigabytes.

    Raises:
        ArtifactError: no manifest, not a manifest, another schema or another kind.
    """
    try:
        manifest = msgspec.json.decode((folder / MANIFEST).read_bytes(), type=Manifest)
    except OSError as error:
        raise ArtifactError(f"{folder} has no readable {MANIFEST}: {error.strerror}") from error
    except msgspec.DecodeError as error:
        raise ArtifactError(f"{folder / MANIFEST}: {error}") from error
    if manifest.schema != BUNDLE_SCHEMA:
        raise ArtifactError(f"{folder}: bundle schema {manifest.schema}, this code reads {BUNDLE_SCHEMA}")
    if manifest.kind != kind:
        raise ArtifactError(f"{folder} is a {manifest.kind} bundle, wanted {kind}")
    return Bundle(folder, manifest)


def damaged(folder: Path, names: Collection[str]) -> frozenset[str]:
    """Those of the bundle's files that are not what was sealed; none where its manifest cannot be read."""
    try:
        files = msgspec.json.decode((folder / MANIFEST).read_bytes(), type=Manifest).files
    except (OSError, msgspec.DecodeError):
        return frozenset()
    return frozenset(name for name in names if name in files and _other(folder / name, files[name]))


def _other(path: Path, checksum: str) -> bool:
    try:
        return sha256_file(path) != checksum
    except OSError:
        return True


def verify(bundle: Bundle) -> list[str]:
    """Problems with the files: missing, changed. Empty when whole."""
    problems = []
    for name, wanted in bundle.manifest.files.items():
        path = bundle.folder / name
        if not path.exists():
            problems.append(f"{name} is missing")
        elif sha256_file(path) != wanted:
            problems.append(f"{name} does not match its checksum")
    return problems


def fit_problems(bundles: Sequence[Bundle]) -> list[str]:
    """Why these bundles cannot serve together, naming both sides. Empty when they can."""
    problems = []
    first = bundles[0].manifest
    for other in (b.manifest for b in bundles[1:]):
        for field in ("feature_hash", "catalogue_hash", "signature"):
            mine, theirs = getattr(first, field), getattr(other, field)
            if mine != theirs:
                problems.append(
                    f"{field}: {first.kind} has {mine[:12] or 'none'}, {other.kind} has {theirs[:12] or 'none'}"
                )
    return problems


def copy_bundle(source: Path, target: Path) -> None:
    """Copy by way of a temporary name, so that a killed copy leaves nothing that looks whole."""
    part = target.with_name(target.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    shutil.copytree(source, part)
    part.rename(target)
