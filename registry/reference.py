"""The reference of a model version: an artefact folder of its training run, what drift and skew are measured against.

rows.parquet        what the ranker read, up to 100,000 rows in the shape of features/frame.py, with `timestamp`,
                    `user_id`, `item_id`, `label`, `score`, `category` and the slice columns. `origin`: of slates of
                    the test window as the funnel with its rules showed them (`slate`, with `position`; what a
                    service that works would show), or of candidates that the ranker learned from (`candidate`)
statistics.json     feature → `features.summaries.Summary`, over the slates' rows (`origin` says when there were
                    none), and whether the ranker reads it at all; feature hash, row signature, snapshot digest
embeddings.npz      item_ids, items float32 [<= 20,000, 128], user_ids, users float32 [<= 2,000, 128]
importance.json     feature → what the ranker's AUC on held-out rows loses without it
"""

import hashlib
from pathlib import Path

FOLDER = "reference"
ROWS, STATISTICS, EMBEDDINGS, IMPORTANCE = "rows.parquet", "statistics.json", "embeddings.npz", "importance.json"
FILES = (ROWS, STATISTICS, EMBEDDINGS, IMPORTANCE)
DIGEST_TAG = "reference_digest"  # of a model version
SCHEMA = 1


def digest_of(folder: Path) -> str:
    """SHA-256 over names and contents of the files.

    Raises:
        FileNotFoundError: one is not there.
    """
    whole = hashlib.sha256()
    for name in FILES:
        whole.update(f"{name} {hashlib.sha256((folder / name).read_bytes()).hexdigest()}\n".encode())
    return whole.hexdigest()
