"""What answers hung on and what changes: kept under `home/states`, so that a replay can have it as it was.

    counts-<moment>[-…].npz    item counts, or their difference to others; written by whoever counts
    items-<hash>.npz           item features of a version of the online store, without vectors, which no stage reads
    rules-<hash>.json          rules documents

Nothing here names a user. Past states of the live catalogue are in its own file (bentos/catalogue/store.py).
"""

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from bentos.telemetry.counts_delta import delta, restored
from bentos.telemetry.item_counts import load_counts, read_counts, save_counts
from contracts.errors import Unreachable
from contracts.rules import RulesDocument
from features.item_counts import ItemCounts
from features.online.base import ItemSnapshot

FOLDER = "states"
WHOLE_EVERY_US = 600_000_000
SNAPSHOTS = 60  # item features that are kept: two months of nightly ones


def keep_counts(home: Path, counts: ItemCounts, room: int) -> None:
    """Whole every ten minutes, else as the difference to those that are laid down now, which `counts` will replace.

    Counts of nothing are kept as well: an answer may name them. room: bytes for all; the oldest go, ten minutes at a
    time, the newest stay.

    Raises:
        OSError: no room on the disk.
    """
    folder = home / FOLDER
    base, root = _base(home, counts.now_us)
    if base is None:
        save_counts(folder / f"counts-{counts.now_us}.npz", counts, np.savez_compressed)
    else:
        _save(folder / f"counts-{counts.now_us}-{base.now_us}-{root}.npz", **delta(base, counts))
    chains: dict[int, list[Path]] = {}
    for moments, path in _kept(folder):
        chains.setdefault(moments[-1], []).append(path)
    used = 0
    for number, moment in enumerate(sorted(chains, reverse=True)):
        used += sum(path.stat().st_size for path in chains[moment])
        if number and used > room:
            for path in chains[moment]:
                path.unlink(missing_ok=True)


def kept_counts(home: Path, moment_us: int) -> ItemCounts | None:
    """None: they are gone, or were never kept.

    Raises:
        Unreachable: a file cannot be read.
    """
    folder = home / FOLDER
    found = next((kept for kept in _kept(folder) if kept[0][0] == moment_us), None)
    if found is None:
        return None
    moments, path = found
    if len(moments) == 1:
        return load_counts(path)
    base = kept_counts(home, moments[1])
    if base is None:
        return None
    try:
        with np.load(path, allow_pickle=False) as file:
            return restored(base, {name: file[name] for name in file.files})
    except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
        raise Unreachable(f"{path} cannot be read: {error}", next_command=f"rm {path}") from error


def _kept(folder: Path) -> Iterator[tuple[list[int], Path]]:
    """Moments of each: its own, that of its base, that of the whole ones which its chain begins with."""
    for path in folder.glob("counts-*.npz"):
        yield [int(part) for part in path.stem.split("-")[1:]], path


def _base(home: Path, now_us: int) -> tuple[ItemCounts | None, int]:
    """What is laid down, where it is kept in a chain that is young; and the moment of the whole ones of that chain."""
    try:
        base = read_counts(home)
    except Unreachable:
        return None, 0
    if base is None:
        return None, 0
    for moments, _ in _kept(home / FOLDER):
        if moments[0] == base.now_us < now_us < moments[-1] + WHOLE_EVERY_US:
            return base, moments[-1]
    return None, 0


def keep_snapshot(home: Path, snapshot: ItemSnapshot) -> None:
    """Once; the oldest go.

    Raises:
        OSError: no room on the disk.
    """
    path = _snapshot_path(home, snapshot.version)
    if path.exists():
        return
    columns = {name: column for name, column in snapshot.columns.items() if column.ndim == 1}
    head = {
        "version": snapshot.version,
        "stamps_us": dict(snapshot.timestamps_us),
        "vectors": [name for name in snapshot.columns if name not in columns],
    }
    _save(
        path,
        head=np.array([json.dumps(head)]),
        item_ids=np.frombuffer("\0".join(snapshot.item_ids).encode(), np.uint8),
        **{f"column {name}": column for name, column in columns.items()},
    )
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


def _save(path: Path, **arrays: NDArray[Any]) -> None:
    """In one step."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.npz")
    try:
        np.savez_compressed(part, **arrays)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _snapshot_path(home: Path, version: str) -> Path:
    return home / FOLDER / f"items-{hashlib.sha256(version.encode()).hexdigest()[:16]}.npz"


def _rules_path(home: Path, digest: str) -> Path:
    return home / FOLDER / f"rules-{hashlib.sha256(digest.encode()).hexdigest()[:16]}.json"
