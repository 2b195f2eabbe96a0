"""Users whose preferences are known: who they are, how often they come, and what they click."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

COUNTRIES: Mapping[str, float] = {"US": 0.40, "DE": 0.30, "FR": 0.20, "AT": 0.07, "LU": 0.03}
DEVICES: Mapping[str, float] = {"ios": 0.40, "android": 0.40, "web": 0.20}
TENURES: Mapping[str, float] = {"new": 0.15, "month": 0.35, "year": 0.50}
KEYS = ("country", "device", "tenure")

# (user, item ids) → chance of a click of each item that is looked at, (n,).
Likes = Callable[[int, Sequence[str]], Floats]


@dataclass(frozen=True)
class Population:
    """N users. All arrays are (N,) but `position` (k,).

    Args:
        visits: expected visits a day; log-normal, so that a tenth of the users make about half of them.
        taste: chance to click an item at the top, as the champion recommends; it differs from user to user.
        position: what is left of it further down.
        likes: in place of `taste`, where it hangs on the item: who is shown what is liked clicks more.
    """

    ids: list[str]
    context: dict[str, Ints]  # key → index into `words[key]`
    words: dict[str, list[str]]
    visits: Floats
    taste: Floats
    position: Floats
    likes: Likes | None = None

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def visits_a_minute(self) -> float:
        return float(self.visits.sum()) / 1440

    def of(self, key: str, word: str) -> NDArray[np.bool_]:
        """Users with this context."""
        found: NDArray[np.bool_] = self.context[key] == self.words[key].index(word)
        return found

    def context_of(self, user: int) -> dict[str, str]:
        return {key: self.words[key][codes[user]] for key, codes in self.context.items()}

    def chances(self, user: int, item_ids: Sequence[str]) -> Floats:
        """Of a click on each item of a slate, (n,), at most `k` of them."""
        seen = self.position[: len(item_ids)]
        if self.likes is None:
            return self.taste[user] * seen
        return self.likes(user, item_ids[: len(seen)]) * seen


def population(
    users: int, seed: int, *, visits_a_day: float = 10.0, click_rate: float = 0.10, k: int = 5, prefix: str = "u"
) -> Population:
    """Uneven as real ones: activity log-normal with σ 1, tastes log-normal with σ 0.3 round `click_rate`."""
    rng = np.random.default_rng([seed, 1])
    words = {"country": list(COUNTRIES), "device": list(DEVICES), "tenure": list(TENURES)}
    shares = (COUNTRIES, DEVICES, TENURES)
    context = {
        key: rng.choice(len(share), users, p=list(share.values())) for key, share in zip(KEYS, shares, strict=True)
    }
    visits = rng.lognormal(-0.5, 1.0, users) * visits_a_day
    taste = np.clip(rng.lognormal(-0.045, 0.3, users) * click_rate, 0.0, 0.9)
    position = 1.0 / (1.0 + 0.3 * np.arange(k))
    return Population([f"{prefix}{i}" for i in range(users)], context, words, visits, taste, position)


class Visitors:
    """Who comes: by activity, again and again."""

    def __init__(self, of: Population) -> None:
        self._until = np.cumsum(of.visits)

    def draw(self, rng: np.random.Generator, minutes: float) -> Ints:
        """Users of the visits within so many minutes, one entry a visit."""
        n = rng.poisson(self._until[-1] / 1440 * minutes)
        found: Ints = np.searchsorted(self._until, rng.random(n) * self._until[-1])
        return found

    def draw_one(self, rng: np.random.Generator) -> int:
        return int(np.searchsorted(self._until, rng.random() * self._until[-1]))


def drifted(of: Population, key: str, word: str, factor: float, seed: int) -> Population:
    """The same users, but of a context's `word` there are `factor` times as many: others become so, drawn at random."""
    code = of.words[key].index(word)
    codes = of.context[key].copy()
    others = np.flatnonzero(codes != code)
    wanted = min(round((codes == code).sum() * factor), len(codes)) - int((codes == code).sum())
    rng = np.random.default_rng([seed, 4])
    if wanted >= 0:
        codes[rng.choice(others, wanted, replace=False)] = code
    else:  # fewer: they are spread over the other words
        gone = rng.choice(np.flatnonzero(codes == code), -wanted, replace=False)
        codes[gone] = (code + rng.integers(1, len(of.words[key]), len(gone))) % len(of.words[key])
    return replace(of, context={**of.context, key: codes})


def swapped(of: Population, key: str, word: str, seed: int) -> Population:
    """The same users, but those of a context have each other's tastes: what is known of them holds no more."""
    users = np.flatnonzero(of.of(key, word))
    whose = np.arange(len(of))
    whose[users] = users[np.random.default_rng([seed, 5]).permutation(len(users))]
    likes = of.likes
    if likes is None:
        return replace(of, taste=of.taste[whose])
    return replace(of, likes=lambda user, item_ids: likes(int(whose[user]), item_ids))
