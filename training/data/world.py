"""A synthetic world with known preferences: who likes what, which is what a real log never tells.

Legend: U users, I items, C categories, D latent factors. All arrays of parameters; the log is drawn by `synth.py`.
"""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contracts.errors import DataError

DAY_US = 86_400_000_000
END_US = 1_735_689_600_000_000  # 2025-01-01T00:00Z: a fixed end, so that the same seed gives the same log on any day
COUNTRIES = ("DE", "FR", "GB", "NL", "US")
DEVICES = ("android", "ios", "web")
AGE_BANDS = ("18-24", "25-34", "35-49", "50+")
LATENT = 8
POSITION_DECAY = 0.7
BIAS = -2.2

Floats = NDArray[np.float32]
Ints = NDArray[np.int32]
Rows = NDArray[np.integer[Any]]


@dataclass(frozen=True)
class World:
    """Everything that decides a click.

    user_category [U, C]: log-affinity, about unit scale. user_latent [U, D], item_latent [I, D]. item_quality [I].
    user_price [U]: taste for dear (+) or cheap (-) things; item_price_z [I]: price in standard deviations of its log.
    country_category [5, C]. launch_us [I]: when an item comes to exist. popularity [I]: how often shown, not how liked.
    activity [U]: share of sessions. Codes: item_category, item_creator, user_country, user_device, user_age.
    """

    seed: int
    days: int
    user_category: Floats
    user_latent: Floats
    user_price: Floats
    user_country: Ints
    user_device: Ints
    user_age: Ints
    activity: Floats
    item_latent: Floats
    item_category: Ints
    item_creator: Ints
    item_quality: Floats
    item_price: Floats
    item_price_z: Floats
    launch_us: NDArray[np.int64]
    popularity: Floats
    is_promoted: NDArray[np.bool_]
    is_flagged: NDArray[np.bool_]
    country_category: Floats

    @property
    def start_us(self) -> int:
        return END_US - self.days * DAY_US

    @property
    def users(self) -> int:
        return len(self.user_latent)

    @property
    def items(self) -> int:
        return len(self.item_latent)

    @property
    def categories(self) -> int:
        return self.user_category.shape[1]

    @classmethod
    def from_seed(cls, seed: int = 0, *, users: int = 2_000, items: int = 1_500, days: int = 30) -> "World":
        """Draw a world. The same arguments give the same arrays."""
        rng = np.random.default_rng([seed, users, items, days])
        categories = int(np.clip(items // 50, 4, 60))
        creators = max(2, items // 15)

        # Tastes: a few categories loved, most not; people of one country lean the same way a little.
        user_country = rng.choice(len(COUNTRIES), users, p=[0.3, 0.2, 0.2, 0.1, 0.2]).astype(np.int32)
        country_category = rng.normal(0, 0.5, (len(COUNTRIES), categories)).astype(np.float32)
        loved = rng.gamma(0.15, 1.0, (users, categories)).astype(np.float32)
        loved /= loved.sum(axis=1, keepdims=True) + 1e-9
        user_category = np.log(loved + 0.01).astype(np.float32)
        user_category -= user_category.mean(axis=1, keepdims=True)
        user_category *= 0.9

        item_category = rng.choice(categories, items, p=_zipf(categories, 0.5)).astype(np.int32)
        item_creator = rng.choice(creators, items, p=_zipf(creators, 0.8)).astype(np.int32)
        centre = rng.normal(0, 0.5, (categories, LATENT))
        style = rng.normal(0, 0.4, (creators, LATENT))
        item_latent = centre[item_category] + style[item_creator] + rng.normal(0, 0.7, (items, LATENT))
        log_price = rng.normal(2.5, 0.6, categories)[item_category] + rng.normal(0, 0.5, items)
        launched_late = rng.random(items) < 0.4
        start_us = END_US - days * DAY_US
        launch_us = np.where(
            launched_late,
            start_us + (rng.random(items) * (END_US - start_us)).astype(np.int64),
            start_us - (rng.random(items) * 365 * DAY_US).astype(np.int64) - DAY_US,
        )
        launch_us[0] = start_us - DAY_US  # something can be shown from the first moment on
        return cls(
            seed=seed,
            days=days,
            user_category=user_category,
            user_latent=rng.normal(0, 1, (users, LATENT)).astype(np.float32),
            user_price=rng.normal(0, 0.5, users).astype(np.float32),
            user_country=user_country,
            user_device=rng.choice(len(DEVICES), users, p=[0.4, 0.35, 0.25]).astype(np.int32),
            user_age=rng.choice(len(AGE_BANDS), users, p=[0.2, 0.3, 0.3, 0.2]).astype(np.int32),
            activity=_normalised(rng.lognormal(0, 0.9, users)),
            item_latent=(item_latent / np.sqrt(LATENT)).astype(np.float32),
            item_category=item_category,
            item_creator=item_creator,
            item_quality=rng.normal(0, 0.5, items).astype(np.float32),
            item_price=np.round(np.exp(log_price), 2).astype(np.float32),
            item_price_z=((log_price - log_price.mean()) / (log_price.std() + 1e-9)).astype(np.float32),
            launch_us=launch_us.astype(np.int64),
            popularity=_normalised(rng.lognormal(0, 0.8, items)),
            is_promoted=rng.random(items) < 0.03,
            is_flagged=rng.random(items) < 0.01,
            country_category=country_category,
        )

    def affinity(self, users: Rows, items: Rows, *, boost: Floats | float = 0.0) -> Floats:
        """Click probability given that the item is looked at, float32, for pairs of rows (the two broadcast).

        boost: added to the log-odds (a session's focus, a drift).
        """
        category = self.item_category[items]
        logit = (
            BIAS
            + self.user_category[users, category]
            + self.country_category[self.user_country[users], category]
            + 1.2 * np.einsum("...d,...d->...", self.user_latent[users], self.item_latent[items])
            + self.item_quality[items]
            + self.user_price[users] * self.item_price_z[items]
            + boost
        )
        probability: Floats = (1.0 / (1.0 + np.exp(-np.clip(logit, -9, 2.5)))).astype(np.float32)
        return probability

    @staticmethod
    def examination(positions: Rows) -> Floats:
        """Probability that the place is looked at; positions from 1."""
        return (np.asarray(positions, dtype=np.float32) ** -POSITION_DECAY).astype(np.float32)

    def user_ids(self) -> list[str]:
        width = len(str(self.users - 1))
        return [f"u{row:0{width}d}" for row in range(self.users)]

    def item_ids(self) -> list[str]:
        width = len(str(self.items - 1))
        return [f"i{row:0{width}d}" for row in range(self.items)]

    def save(self, folder: Path) -> None:
        """Write `world.npz`; the position bias goes with it as `examination` for places 1 to 500."""
        folder.mkdir(parents=True, exist_ok=True)
        arrays = {field.name: np.asarray(getattr(self, field.name)) for field in fields(self)}
        np.savez(folder / "world.npz", examination=self.examination(np.arange(1, 501)), **arrays)

    @classmethod
    def load(cls, folder: Path) -> "World":
        """
        Raises:
            DataError: no world there, or one of another version.
        """
        try:
            with np.load(folder / "world.npz", allow_pickle=False) as arrays:
                values = {field.name: arrays[field.name] for field in fields(cls)}
        except (OSError, KeyError, ValueError) as error:
            raise DataError(
                f"{folder / 'world.npz'} holds no synthetic world: {error}", next_command="streamrec data synth OUT"
            ) from error
        return cls(**(values | {"seed": int(values["seed"]), "days": int(values["days"])}))


def _zipf(n: int, exponent: float) -> NDArray[np.float64]:
    weights = np.arange(1, n + 1, dtype=np.float64) ** -exponent
    share: NDArray[np.float64] = weights / weights.sum()
    return share


def _normalised(weights: NDArray[np.float64]) -> Floats:
    share: Floats = (weights / weights.sum()).astype(np.float32)
    return share
