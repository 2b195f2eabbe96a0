"""The reference workload on disk: the world's bundles, and a home whose online store knows every user.

    FOLDER/world/{retrieval,ranking,fallback}   bundles (`reference_world.write_world`)
    FOLDER/home/{online.db,events.db}           user features and last events, lists, item snapshot, watermark

Made once for each set of parameters and kept: its name holds a digest of them and of the code that makes it.
"""

import contextlib
import hashlib
import os
import shutil
import sys
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

from benchmarks import reference_ranker, reference_state, reference_world
from benchmarks.reference_ranker import REFERENCE, RankerShape
from benchmarks.reference_state import interactions, item_snapshot, user_features
from benchmarks.reference_world import NOW_US, item_id, user_id, write_world
from features.online.base import PrecomputedList
from features.online.sqlite import SqliteStore
from features.online.streaming import EVENTS_DB
from features.registry import REGISTRY
from training import nearest
from training.models import dcn_fast, dcn_folded, dcn_graph, dcn_int8

HOUR_US = 3_600_000_000
BATCH = 5_000  # users a transaction
LISTED = 50  # items of a precomputed list


@dataclass(frozen=True, slots=True)
class Size:
    """The reference workload of the benchmark; tests take less."""

    users: int = 50_000
    items: int = 200_000
    categories: int = 200
    creators: int = 5_000
    graph_dim: int = 64
    ranker: RankerShape = REFERENCE
    seed: int = 7

    @property
    def key(self) -> str:
        graphs = (dcn_fast.__file__, dcn_folded.__file__, dcn_graph.__file__, dcn_int8.__file__)
        files = (
            reference_world.__file__,
            reference_ranker.__file__,
            reference_state.__file__,
            nearest.__file__,
            *graphs,
            __file__,
        )
        code = b"".join(Path(file).read_bytes() for file in files)
        told = repr(self).encode() + REGISTRY.hash.encode()
        return f"{self.items}x{self.users}-{hashlib.sha256(told + code).hexdigest()[:10]}"


@dataclass(frozen=True, slots=True)
class Reference:
    world: Path
    stores: Path  # the home as it was made: copied for every server, which writes its own logs

    def home(self, folder: Path) -> Path:
        """A home of its own for one server."""
        folder.mkdir(parents=True)
        for file in self.stores.iterdir():
            shutil.copy(file, folder / file.name)
        return folder


def reference(size: Size, cache: Path) -> Reference:
    """The workload of this size, from `cache` where it has been made before."""
    folder = cache / size.key
    if not folder.exists():
        cache.mkdir(parents=True, exist_ok=True)
        part = cache / f".{size.key}.{os.getpid()}"
        shutil.rmtree(part, ignore_errors=True)
        print(f"making the reference world {folder.name} (once)", file=sys.stderr)
        write_world(part / "world", **{f.name: getattr(size, f.name) for f in fields(size)})
        write_stores(part / "home", size)
        with contextlib.suppress(OSError):  # someone else was faster
            part.rename(folder)
        for other in cache.glob(f"{size.key.partition('-')[0]}-*"):
            if other != folder:  # of code that has changed since
                shutil.rmtree(other, ignore_errors=True)
        shutil.rmtree(part, ignore_errors=True)
    return Reference(folder / "world", folder / "home")


def write_stores(home: Path, size: Size) -> None:
    """What `features materialize` and a running consumer would have put there, with drawn values.

    Everybody has fresh batch features, 10 interactions and a precomputed list; every fifth user's last interactions
    came through the stream.
    """
    rng = np.random.default_rng(size.seed)
    store = SqliteStore(home)
    for first in range(0, size.users, BATCH):
        ids = [user_id(u) for u in range(first, min(first + BATCH, size.users))]
        store.write_users({id_: user_features(rng, size.categories, size.items) for id_ in ids})
    store.append_interactions(
        [(user_id(u), i) for u in range(0, size.users, 5) for i in interactions(rng, size.items, 3, newest_h=0.1)]
    )
    store.advance_watermark(NOW_US)
    store.publish_lists("bench", {user_id(u): _list(rng, size) for u in range(size.users)})
    store.write_item_snapshot(item_snapshot(rng, size.items))
    store.close()
    assert (home / EVENTS_DB).exists()


def _list(rng: np.random.Generator, size: Size) -> PrecomputedList:
    items = rng.integers(0, size.items, LISTED)
    scores = np.sort(rng.random(LISTED))[::-1]
    ids = tuple(item_id(int(i)) for i in items)
    return PrecomputedList(ids, tuple(scores.tolist()), "bench", "unbuilt", NOW_US, "all")
