"""What answers hung on and what changes: kept under `home/states`, so that a replay can have it as it was.

    counts-<moment>.npz      item counts; written by whoever counts, the oldest go when the room is full
    items-<hash>.npz         item features of a version of the online store, without vectors, which no stage reads
    rules-<digest>.json      rules documents

Nothing here names a user. Past states of the live catalogue are in its own file (bentos/catalogue/store.py).
"""

import hashlib
import json
import os
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from bentos.telemetry.item_counts import load_counts, save_counts
from contracts.errors import Unreachable
from contracts.rules import RulesDocument
from features.item_counts import ItemCounts
from features.online.base import ItemSnapshot

FOLDER = "states"
SNAPSHOTS = 60  # item features that are kept: two months of nightly ones


def keep_counts(home: Path, counts: ItemCounts, room: int) -> None:
    """room: bytes for all of them. Counts of nothing are kept as well: an answer may name them.

    Raises:
        OSError: no room on the disk.
    """
    folder = home / FOLDER
    save_counts(folder / f"counts-{counts.now_us}.npz", counts, np.savez_compressed)
    kept = sorted(folder.glob("counts-*.npz"), key=lambda path: int(path.stem.partition("-")[2]), reverse=True)
    used = 0
    for number, path in enumerate(kept):
        used += path.stat().st_size
        if number and used > room:
            path.unlink(missing_ok=True)


def kept_counts(home: Path, moment_us: int) -> ItemCounts | None:
    """None: they are gone, or were never kept.

    Raises:
        Unreachable: the file cannot be read.
    """
    return load_counts(home / FOLDER / f"counts-{moment_us}.npz")


def keep_snapshot(home: Path, snapshot: ItemSnapshot) -> None:
    """Once; the oldest go.

    Raises:
        OSError: no room on the disk.
    """
    path = _snapshot_path(home, snapshot.version)
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = {name: column for name, column in snapshot.columns.items() if column.ndim == 1}
    head = {
        "version": snapshot.version,
        "stamps_us": dict(snapshot.timestamps_us),
        "vectors": [name for name in snapshot.columns if name not in columns],
    }
    part = path.with_name(f".{path.name}.{os.getpid()}.npz")
    try:
        np.savez_compressed(
            part,
            head=np.array([json.dumps(head)]),
            item_ids=np.frombuffer("\0".join(snapshot.item_ids).encode(), np.uint8),
            **{f"column {name}": column for name, column in columns.items()},
        )
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    for old in sorted(path.parent.glob("items-*.npz"), key=lambda p: p.stat().st_mtime_ns)[:-SNAPSHOTS]:
        old.unlink(missing_ok=True)


def kept_snapshot(home: Path, version: str) -> ItemSnapshot | None:
    """None: it is gone, or was never kept. In the place of vectors stand others: their age alone is looked at.

    Raises:
        Unreachable: the file cannot be read.
    """
    path = _snapshot_path(home, version)
    try:
        with np.load(path, allow_pickle=False) as file:
            head = json.loads(str(file["head"][0]))
            packed = file["item_ids"].tobytes().decode()
            columns = {name.partition(" ")[2]: file[name] for name in file.files if name.startswith("column ")}
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
        raise Unreachable(f"{path} cannot be read: {error}", next_command=f"rm {path}") from error
    item_ids = packed.split("\0") if packed else []
    columns |= {name: np.zeros((len(item_ids), 1), np.float32) for name in head["vectors"]}
    return ItemSnapshot(head["version"], item_ids, columns, head["stamps_us"])


def keep_rules(home: Path, rules: RulesDocument) -> None:
    """Once.

    Raises:
        OSError: no room on the disk.
    """
    path = _rules_path(home, rules.digest)
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}")
    part.write_text(rules.model_dump_json())
    part.replace(path)


def kept_rules(home: Path, digest: str) -> RulesDocument | None:
    """None: they were never kept."""
    try:
        return RulesDocument.model_validate_json(_rules_path(home, digest).read_text())
    except (OSError, ValueError):
        return None


def _snapshot_path(home: Path, version: str) -> Path:
    return home / FOLDER / f"items-{hashlib.sha256(version.encode()).hexdigest()[:16]}.npz"


def _rules_path(home: Path, digest: str) -> Path:
    return home / FOLDER / f"rules-{hashlib.sha256(digest.encode()).hexdigest()[:16]}.json"
