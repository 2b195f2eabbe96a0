"""What holds a user and is not changed when the user is forgotten: said by name, with what to do about it."""

from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

import duckdb

from contracts.dataset import INTERACTIONS, USERS
from contracts.ids import IdIndex
from features import duck
from registry.bento_store import bentos
from registry.lineage import SNAPSHOTS
from registry.reference import FOLDER, ROWS

# Where MLflow's artefacts lie when nothing else is set; on a server they are not looked through.
_RUNS = "mlartifacts/*/*/artifacts"
_DOWNLOADED = "cache/runs/*"


def kept_elsewhere(home: Path, user_id: str) -> list[str]:
    """Models, and what they were trained from: checksums make them what they are, so they are made anew instead."""
    said = []
    with closing(duck.connect()) as db:
        said += [
            f"data snapshot {folder}: remove it once models of a later export have replaced its own"
            for folder in sorted((home / SNAPSHOTS).glob("*/"))
            if any(_holds(db, folder / name, user_id) for name in (INTERACTIONS, USERS))
        ]
        said += [
            f"reference of a training run {folder}: remove it with the run's models"
            for pattern in (_RUNS, _DOWNLOADED)
            for folder in sorted(home.glob(f"{pattern}/{FOLDER}"))
            if _holds(db, folder / ROWS, user_id)
        ]
    named = [bento.tag for bento in bentos(home) if _of_bundle(bento.models.get("retrieval", ("", Path()))[1], user_id)]
    if named:
        said.append(
            f"models of {', '.join(named)}: a vector of the user, and which items were met;"
            " `data export`, `train` and `build` make them without"
        )
    versions = [f for f in home.glob("mlartifacts/*/models/*/artifacts/bundle") if _of_bundle(f, user_id)]
    if versions:
        said.append(f"{len(versions)} model versions in MLflow, likewise: `mlflow gc` once they are deleted")
    said.append(
        "memory of running processes, until they are restarted: the user's last slate, and context records among the"
        " last 1,000"
    )
    said.append("backups, exports and lists in files that were made before, a remote MLflow: not looked through")
    return said


def _holds(db: duckdb.DuckDBPyConnection, path: Path, user_id: str) -> bool:
    """Whether a Parquet file, or one in the folder, has a row of the user."""
    files = [path] if path.is_file() else sorted(path.glob("*.parquet"))
    return any(_has(db, file, user_id) for file in files)


def _has(db: duckdb.DuckDBPyConnection, file: Path, user_id: str) -> bool:
    query = "SELECT 1 FROM read_parquet($file) WHERE user_id = $user LIMIT 1"
    try:
        found: Iterable[object] = db.execute(query, {"file": str(file), "user": user_id}).fetchall()
    except duckdb.Error:
        return False  # no column of users, or nothing that anybody can read
    return bool(found)


def _of_bundle(folder: Path, user_id: str) -> bool:
    """Whether a retrieval bundle names the user."""
    try:
        return IdIndex.open(folder, "user").lookup(user_id) >= 0
    except (OSError, ValueError):
        return False  # of another kind, or nobody can read it
