"""Permutation p-values that stop early where chance explains the data well: Besag & Clifford (1991), in chunks."""

from collections.abc import Callable

MOST = 1_000  # permutations; p is at least 1 / (MOST + 1), small enough to survive a correction over 40 tests
ENOUGH = 20  # permuted statistics at least as large as the observed one: p is then known well enough


def sequential_p(exceed: Callable[[int], int], chunk: int) -> float:
    """exceed(n): how many of n new permutations give a statistic of at least the observed one. Never 0."""
    hits = done = 0
    while done < MOST and hits < ENOUGH:
        count = min(chunk, MOST - done)
        hits += exceed(count)
        done += count
    return (hits + 1) / (done + 1)
