"""What MLflow shows of a bundle: its `MLmodel` file with the tensors that go in and come out."""

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from contracts.errors import ArtifactError
from contracts.serving import EMBEDDING_DIM, HISTORY_LENGTH
from registry.artifacts import Bundle

if TYPE_CHECKING:
    from mlflow.models import ModelSignature

FLAVOUR = "streamrec"
BUNDLE_FOLDER = "bundle"


def signature_of(bundle: Bundle) -> "ModelSignature":
    """-1 is the batch."""
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    if bundle.manifest.kind == "retrieval":
        attributes = 1 + len(bundle.manifest.params.get("attributes", ()))
        return ModelSignature(
            inputs=Schema(
                [
                    TensorSpec(np.dtype("int64"), (-1, HISTORY_LENGTH), "history"),
                    TensorSpec(np.dtype("float32"), (-1, HISTORY_LENGTH), "history_age_h"),
                    TensorSpec(np.dtype("int64"), (-1, attributes), "attributes"),
                ]
            ),
            outputs=Schema([TensorSpec(np.dtype("float32"), (-1, EMBEDDING_DIM), "embedding")]),
        )
    return ModelSignature(
        inputs=Schema([TensorSpec(np.dtype("float32"), (-1, _row_width(bundle)), "rows")]),
        outputs=Schema([TensorSpec(np.dtype("float32"), (-1,), "score")]),
    )


def write_mlmodel(bundle: Bundle, run_id: str, model_id: str, manifest_digest: str, path: Path) -> None:
    """A flavour of our own: a bundle is read by `registry.artifacts.open_bundle`, never unpickled."""
    from mlflow.models import Model

    manifest = bundle.manifest
    model = Model(
        run_id=run_id,
        model_id=model_id,
        signature=signature_of(bundle),
        metadata={"kind": manifest.kind, "feature_hash": manifest.feature_hash, "n_items": manifest.n_items},
    )
    model.add_flavor(FLAVOUR, kind=manifest.kind, data=BUNDLE_FOLDER, manifest_sha256=manifest_digest)
    model.save(str(path))


def _row_width(bundle: Bundle) -> int:
    with suppress(ArtifactError, KeyError, TypeError, ValueError):
        return len(bundle.json("schema.json")["columns"])
    return -1
