"""What was done with each item lately, in a file that every process of this machine can take in quickly.

    python -m bentos.telemetry.item_counts --home .streamrec

Reading the counts out of the online store is seconds of work where a catalogue is large, so the consumer has it done by
this process now and then, at low priority, and not each serving process for itself. The file is replaced in one step.
"""

import argparse
import contextlib
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from contracts.errors import StreamRecError, Unreachable
from contracts.settings import load_settings
from features.item_counts import ItemCounts
from features.online.base import OnlineStore
from features.online.open import open_store

FILE = "item-counts.npz"


def counts_path(home: Path) -> Path:
    return home / "run" / FILE


def write_counts(home: Path, counts: ItemCounts) -> None:
    """
    Raises:
        OSError: no room.
    """
    save_counts(counts_path(home), counts, np.savez)


def save_counts(path: Path, counts: ItemCounts, save: Callable[..., None]) -> None:
    """In one step. save: `np.savez`, or `np.savez_compressed` for what is read rarely.

    Raises:
        OSError: no room.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.npz")
    try:
        save(
            part,
            when=np.array([counts.now_us, counts.since_us], np.int64),
            item_ids=_packed(counts.item_ids),
            events=_packed(counts.events),
            grade=counts.grade,
            decayed=counts.decayed,
            n=counts.n,
            valued=counts.valued,
            share=counts.share,
        )
        part.replace(path)
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)


def read_counts(home: Path) -> ItemCounts | None:
    """None: nothing was counted yet.

    Raises:
        Unreachable: the file cannot be read.
    """
    return load_counts(counts_path(home))


def load_counts(path: Path) -> ItemCounts | None:
    """As `read_counts`, from any file."""
    try:
        with np.load(path, allow_pickle=False) as file:
            now_us, since_us = file["when"].tolist()
            return ItemCounts(
                now_us,
                _unpacked(file["item_ids"]),
                _unpacked(file["events"]),
                file["grade"],
                file["decayed"],
                file["n"],
                file["valued"],
                file["share"],
                since_us,
            )
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
        raise Unreachable(f"{path} cannot be read: {error}", next_command=f"rm {path}") from error


def refresh(home: Path, store: OnlineStore, now_us: int, states_mb: int = 0) -> None:
    """states_mb: room for counts that are kept for replays; before anybody serves from them, they are there.

    Raises:
        Unreachable: the store is away. OSError: no room.
    """
    from bentos.telemetry.states import keep_counts

    counts = store.read_item_counts(now_us)
    if states_mb:
        with contextlib.suppress(OSError):  # a replay will say what it lacks
            keep_counts(home, counts, states_mb << 20)
    write_counts(home, counts)


def _packed(words: Sequence[str]) -> np.ndarray[tuple[int], np.dtype[np.uint8]]:
    """No word holds a NUL: ids and names of events are refused with one."""
    return np.frombuffer("\0".join(words).encode(), np.uint8)


def _unpacked(packed: np.ndarray[tuple[int], np.dtype[np.uint8]]) -> list[str]:
    return packed.tobytes().decode().split("\0") if len(packed) else []


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bentos.telemetry.item_counts", description=__doc__.splitlines()[0])
    parser.add_argument("--home", type=Path, required=True)
    given = parser.parse_args(arguments)
    os.nice(10)  # it runs beside processes that answer requests
    try:
        settings = load_settings({"home": given.home})
        store = open_store(settings)
        try:
            refresh(given.home, store, time.time_ns() // 1000, settings.states_mb)
        finally:
            store.close()
    except (StreamRecError, OSError) as error:
        print(f"item counts: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
