"""How often an A/A test is stopped when one looks often: a fixed test, an always-valid one per impression and per user.

    python -m benchmarks.aa_looks [--runs 1000] [--users 1000] [--picture docs/pictures/aa-looks.png]

Users of uneven activity come again and again, with click rates of their own; both arms are the same.
"""

import argparse
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from monitoring.statistics.always_valid import compare
from monitoring.statistics.estimates import Estimate
from monitoring.statistics.samples import Proportion, Ratio

LOOKS = 100
SHOWN = (1, 2, 5, 10, 20, 50, 100)
CHUNK = 50  # runs at once: some 100 MB
FIELDS = ("n", "x", "y", "xx", "yy", "xy", "on")


@dataclass(frozen=True, slots=True)
class World:
    """users: an arm. spread: of the logarithm of a user's visits. rate_shape: α + β of users' click rates; the
    smaller, the more a user's clicks come together. panel: all users came before the first look.
    """

    users: int = 500
    visits: float = 0.8  # mean of the logarithm
    spread: float = 1.0
    impressions: float = 10.0  # a visit
    rate: float = 0.05
    rate_shape: float = 10.0
    panel: bool = False


def sums(world: World, runs: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """What is known at each look. Shape (runs, 2 arms, LOOKS, fields)."""
    people = runs * 2 * world.users
    count = 1 + np.minimum(rng.lognormal(world.visits, world.spread, people), 200).astype(np.int64)
    user = np.repeat(np.arange(people), count)
    born = np.zeros(people) if world.panel else rng.random(people)
    start = np.concatenate([[0], np.cumsum(count)[:-1]])
    at = born[user] + (1 - born[user]) * rng.random(len(user))
    at[start] = born
    at = at[np.argsort(user + at, kind="stable")]  # in time within each user
    rate = rng.beta(world.rate * world.rate_shape, (1 - world.rate) * world.rate_shape, people)
    y = 1.0 + rng.poisson(world.impressions - 1, len(user))
    x = rng.binomial(y.astype(np.int64), rate[user]).astype(np.float64)
    x_now, y_now = _running(x, start, count), _running(y, start, count)
    x_before, y_before = x_now - x, y_now - y
    steps = {
        "n": (y_before == 0).astype(np.float64),
        "x": x,
        "y": y,
        "xx": x_now**2 - x_before**2,
        "yy": y_now**2 - y_before**2,
        "xy": x_now * y_now - x_before * y_before,
        "on": ((x_before == 0) & (x_now > 0)).astype(np.float64),
    }
    cell = user // world.users * LOOKS + np.minimum((at * LOOKS).astype(np.int64), LOOKS - 1)
    shape = (runs, 2, LOOKS)
    parts = [np.bincount(cell, steps[f], minlength=runs * 2 * LOOKS).reshape(shape).cumsum(-1) for f in FIELDS]
    return np.stack(parts, axis=-1)


def _running(values: NDArray[np.float64], start: NDArray[np.int64], count: NDArray[np.int64]) -> NDArray[np.float64]:
    """Sums so far within each user."""
    whole = np.cumsum(values)
    return whole - np.repeat(whole[start] - values[start], count)


def ratio(row: NDArray[np.float64]) -> Ratio:
    n, x, y, xx, yy, xy, on = row.tolist()
    return Ratio(int(n), x, y, xx, yy, xy, int(on))


def impressions(row: NDArray[np.float64]) -> Proportion:
    """The mistake: as if each impression were a unit."""
    return Proportion(int(row[2]), int(row[1]))


def first_stops(world: World, runs: int, seed: int, tuning_n: int = 5000) -> dict[str, NDArray[np.int64]]:
    """The look at which each run would have been stopped (LOOKS: never), by way of testing; α 0.05."""
    found: dict[str, list[int]] = {"fixed": [], "per impression": [], "per user": []}
    for control, treatment in _runs(world, runs, seed):
        found["fixed"].append(_first(_fixed(control[i], treatment[i]) for i in range(LOOKS)))
        for name, sample in (("per impression", impressions), ("per user", ratio)):
            found[name].append(
                _first(
                    isinstance(e, Estimate) and e.p is not None and e.p < 0.05
                    for e in (
                        compare(sample(control[i]), sample(treatment[i]), tuning_n=tuning_n) for i in range(LOOKS)
                    )
                )
            )
    return {name: np.array(stops) for name, stops in found.items()}


def _runs(world: World, runs: int, seed: int) -> Iterator[tuple[NDArray[np.float64], NDArray[np.float64]]]:
    rng = np.random.default_rng(seed)
    for done in range(0, runs, CHUNK):
        for run in sums(world, min(CHUNK, runs - done), rng):
            yield run[0], run[1]


def _first(stopped: Iterator[bool]) -> int:
    return next((i for i, stop in enumerate(stopped) if stop), LOOKS)


def _fixed(control: NDArray[np.float64], treatment: NDArray[np.float64]) -> bool:
    """The textbook's test per user, as if each look were the only one."""
    a, b = ratio(control), ratio(treatment)
    variance = a.variance + b.variance
    return variance > 0 and abs(b.value - a.value) > 1.959964 * math.sqrt(variance)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--users", type=int, default=1000)
    parser.add_argument("--tuning-n", type=int, default=5000)
    parser.add_argument("--panel", action="store_true", help="all users came before the first look")
    parser.add_argument("--rate-shape", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--picture", type=Path)
    options = parser.parse_args()
    world = World(users=options.users, panel=options.panel, rate_shape=options.rate_shape)
    stops = first_stops(world, options.runs, options.seed, options.tuning_n)
    curves = {name: [float((s <= i).mean()) for i in range(LOOKS)] for name, s in stops.items()}
    document: dict[str, Any] = {
        "runs": options.runs,
        "users_per_arm": options.users,
        "tuning_n": options.tuning_n,
        "stopped": {name: {k: curve[k - 1] for k in SHOWN} for name, curve in curves.items()},
    }
    print(json.dumps(document))
    if options.picture:
        draw(curves, options.picture)


def draw(curves: dict[str, list[float]], path: Path) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    labels = {
        "fixed": "fixed test per user, looked at again and again",
        "per impression": "always valid, but per impression",
        "per user": "always valid per user",
    }
    figure, axes = plt.subplots(figsize=(6.4, 3.4), dpi=110)
    for name, curve in curves.items():
        axes.plot(range(1, LOOKS + 1), [100 * c for c in curve], label=labels[name])
    axes.axhline(5, color="0.5", linewidth=0.8, linestyle="--")
    axes.set(xlabel="looks", ylabel="A/A tests stopped, %", xlim=(1, LOOKS), ylim=(0, None))
    axes.legend(frameon=False, fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(path)


if __name__ == "__main__":
    main()
