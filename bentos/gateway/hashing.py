"""The hash of the assignment: GrowthBook's, version 2, of one unit by the SDK itself and of many by NumPy.

Analysis and simulation use `gbhash_many` and the gateway `gbhash`; a test holds them equal bit for bit. FNV-1a, 32 bit
(http://www.isthe.com/chongo/tech/comp/fnv/), over characters, twice: the second time over the first in decimal, so that
seeds are independent. Version 1 hashes once and is not.
"""

from collections.abc import Sequence
from typing import cast

import numpy as np
import numpy.typing as npt
from growthbook import core

from contracts.routing import ExperimentRoute, ReleaseRoute

HASH_VERSION = 2
BUCKETS = 10_000  # a hash is one of 0, 0.0001, … 0.9999

_OFFSET, _PRIME = np.uint32(0x811C9DC5), np.uint32(0x01000193)
_CHUNK = 16_384  # units hashed at a time: the characters of a chunk are one matrix

Ranges = list[tuple[float, float]]


def gbhash(seed: str, value: str) -> float:
    """0 ≤ n < 1, in steps of 1/10,000."""
    return cast(float, core.gbhash(seed, value, HASH_VERSION))


def bucket_ranges(weights: Sequence[float], coverage: float) -> Ranges:
    """Half-open ranges, one a variation. Each begins where it would at full coverage, so that more coverage moves no
    unit from one variation to another."""
    return core.getBucketRanges(len(weights), coverage, list(weights))


def choose_variation(n: float, ranges: Ranges) -> int:
    """Index of the range that has n; -1 when none has."""
    return core.chooseVariation(n, ranges)


def gbhash_many(seed: str, values: Sequence[str]) -> npt.NDArray[np.float64]:
    """`gbhash` of N values: (N,) float64."""
    hashes = [_chunk(seed, values[i : i + _CHUNK]) for i in range(0, len(values), _CHUNK)]
    return np.concatenate(hashes) if hashes else np.empty(0, np.float64)


def choose_many(n: npt.NDArray[np.float64], ranges: Ranges) -> npt.NDArray[np.int64]:
    """`choose_variation` of N hashes: (N,) int64."""
    chosen = np.full(n.shape, -1, np.int64)
    for i, (low, high) in reversed(list(enumerate(ranges))):  # the first range that has it wins
        chosen[(low <= n) & (n < high)] = i
    return chosen


def release_ranges(route: ReleaseRoute) -> Ranges:
    """Of `candidate` and `control`, below 100 %."""
    return bucket_ranges((route.split, 1 - route.split), route.coverage)


def release_arms(route: ReleaseRoute, units: Sequence[str]) -> npt.NDArray[np.str_]:
    """Arm of N units that are all eligible: (N,) of `candidate`, `control`, `champion`."""
    if route.weight == 100:
        return np.full(len(units), "candidate")
    chosen = choose_many(gbhash_many(route.id, units), release_ranges(route))
    return np.array(["candidate", "control", "champion"])[chosen]  # -1 is the last


def experiment_arms(route: ExperimentRoute, units: Sequence[str]) -> npt.NDArray[np.str_]:
    """Arm of N units that are all eligible: (N,) of `treatment`, `control` and, for who is in neither, ``."""
    chosen = choose_many(gbhash_many(route.id, units), bucket_ranges((route.split, 1 - route.split), route.coverage))
    layer = gbhash_many(layer_seed(route.layer), units)
    chosen[(layer < route.slot[0]) | (layer >= route.slot[1])] = -1
    return np.array(["treatment", "control", ""])[chosen]


def layer_seed(name: str) -> str:
    """Not the bare name: a layer with an experiment's name would decide its arms. Names have no colon."""
    return f"layer:{name}"


def holdout_seed(name: str) -> str:
    return f"holdout:{name}"


def _chunk(seed: str, values: Sequence[str]) -> npt.NDArray[np.float64]:
    lengths = np.fromiter((len(v) for v in values), np.int64, len(values))
    width = max(1, int(lengths.max()))
    characters = np.array(values, dtype=f"U{width}").view(np.uint32).reshape(len(values), width)
    state = np.full(len(values), core.fnv1a32(seed), np.uint32)
    for column in range(width):
        state = np.where(lengths > column, (state ^ characters[:, column]) * _PRIME, state)
    again = np.full(len(values), _OFFSET, np.uint32)
    for power in range(9, -1, -1):  # the decimal digits of the first hash, from the left, without leading zeros
        scale = np.uint32(10**power)
        digit = state // scale % np.uint32(10) + np.uint32(ord("0"))
        there = (state >= scale) | (power == 0)
        again = np.where(there, (again ^ digit) * _PRIME, again)
    return (again % BUCKETS) / BUCKETS
