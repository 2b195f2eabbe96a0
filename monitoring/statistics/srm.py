"""Sample-ratio mismatch: do the arms have the sizes that the split says? p < 0.001 stops promotions."""

import math
from collections.abc import Sequence

# Weight of the expected split in the Dirichlet mixture, as in the authors' own package.
CONCENTRATION = 10_000.0


def chi_square(counts: Sequence[int], split: Sequence[float]) -> float:
    """p of Pearson's test, for one look."""
    from scipy.stats import chisquare

    total = _check(counts, split)
    return float(chisquare(counts, [total * s for s in split]).pvalue)


def always_valid(counts: Sequence[int], split: Sequence[float]) -> float:
    """p for any number of looks: one over a Dirichlet mixture's e-value (Lindon & Malek 2022, arXiv:2011.03567)."""
    total = _check(counts, split)
    log_e = math.lgamma(CONCENTRATION) - math.lgamma(CONCENTRATION + total)
    for count, share in zip(counts, split, strict=True):
        prior = CONCENTRATION * share
        log_e += math.lgamma(prior + count) - math.lgamma(prior) - count * math.log(share)
    return math.exp(min(0.0, -log_e))


def _check(counts: Sequence[int], split: Sequence[float]) -> int:
    if len(counts) != len(split) or len(counts) < 2:
        raise ValueError("counts and split name the same arms, two or more")
    if any(c < 0 for c in counts) or not sum(counts):
        raise ValueError("an arm has less than no unit, or none has any")
    if not all(0 < s < 1 for s in split) or abs(sum(split) - 1) > 1e-9:
        raise ValueError("a split has shares over 0 that sum to 1")
    return sum(counts)
