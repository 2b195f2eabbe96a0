"""What is known of the users and items of a test set from before the cut, as slices."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from contracts.catalogue import Catalogue
from contracts.dataset import INTERACTIONS, DatasetConfig
from features import duck
from training.data import read
from training.evaluation import slices
from training.holdout import met_counts, user_words
from training.interactions import DAY_US, Log

TENURE_D = (7.0, 30.0, 90.0)
RECENCY_D = (1.0, 7.0, 30.0)
ITEM_AGE_D = (7.0, 30.0)
# Groups of people that are asked about wherever the data set has such a column of users, declared as a slice or not.
ALWAYS = ("country", "locale")
CREATOR_HEAD = 0.5  # of all positive events, from the most popular creator on

Masks = Mapping[str, NDArray[np.bool_]]


def slice_columns(config: DatasetConfig) -> tuple[str, ...]:
    """Columns that are sliced by, where the users have them."""
    return (*config.slices, *(name for name in ALWAYS if name not in config.slices))


def user_cohorts(
    folder: Path, config: DatasetConfig, log: Log, catalogue: Catalogue, users: NDArray[np.int64]
) -> Masks:
    """Slices of `users` (rows of the log), those of nobody too."""
    everybody = np.arange(log.n_users)
    columns = slice_columns(config)
    words, all_words = (user_words(folder, config, log, some, columns) for some in (users, everybody))
    first = np.full(log.n_users, log.until_us, np.int64)
    last = np.zeros(log.n_users, np.int64)
    np.minimum.at(first, log.user, log.timestamp_us)
    np.maximum.at(last, log.user, log.timestamp_us)
    masks = slices.activity(met_counts(log)[users])
    for name, values in words.items():
        masks |= slices.attribute(name, values) | slices.absent(name, values, all_words[name])
        masks |= slices.rare(name, values, all_words[name])
    masks |= slices.bands("tenure", (log.until_us - first[users]) / DAY_US, TENURE_D)
    masks |= slices.bands("recency", (log.until_us - last[users]) / DAY_US, RECENCY_D)
    spend = spent(folder, config, log, catalogue)
    if spend is not None:
        masks |= slices.value_bands(spend[users], spend)
    return {name: np.asarray(mask, bool) for name, mask in masks.items()}


def without_slices(config: DatasetConfig, catalogue: Catalogue, masks: Masks) -> dict[str, str]:
    """What would be sliced by and is not in `masks` → why: columns, declared or asked about always, and spend."""
    there = {name.split("=", 1)[0] for name in masks}
    lacking = {name: "the users have no such column" for name in slice_columns(config) if name not in there}
    if "value" not in there:
        lacking["value"] = _no_spend(config, catalogue) or "nobody took up anything that has a price"
    return lacking


def _no_spend(config: DatasetConfig, catalogue: Catalogue) -> str:
    """Why it is not known what anybody spent; "" where it is."""
    if max(config.positives, key=lambda p: p.weight).min_value is not None:
        return "wishes are ratings"
    return "" if np.isfinite(catalogue.price).any() else "the items have no prices"


def spent(folder: Path, config: DatasetConfig, log: Log, catalogue: Catalogue) -> NDArray[np.float64] | None:
    """Of each user before the cut, float64 [U]: prices of what the strongest wishes were for, times `value` where that
    is a number of pieces (at least one). None without prices, and where a wish is a rating."""
    if _no_spend(config, catalogue):
        return None
    strongest = max(config.positives, key=lambda p: p.weight)
    path = folder / INTERACTIONS
    names = set(read.schema(path).names)
    pieces = "greatest(coalesce(l.value, 1), 1)" if "value" in names else "1"
    items = pa.table({"item_id": list(catalogue.item_ids), "price": np.nan_to_num(catalogue.price)})
    with duck.connect() as db:
        db.register("items", items)
        found = db.execute(
            f"SELECT l.user_id, sum(i.price * {pieces}) AS spend FROM read_parquet(?) l JOIN items i USING (item_id)"  # noqa: S608
            ' WHERE l.event = ? AND epoch_us(l."timestamp") < ? GROUP BY l.user_id',
            [str(path / "**/*.parquet") if path.is_dir() else str(path), strongest.event, log.until_us],
        ).fetchnumpy()
    row = {name: at for at, name in enumerate(log.user_ids)}
    out = np.zeros(log.n_users)
    for name, value in zip(found["user_id"].tolist(), found["spend"].tolist(), strict=True):
        if name in row:
            out[row[name]] = value
    return out


def item_cohorts(log: Log, catalogue: Catalogue) -> Masks:
    """Slices of the catalogue, bool [N], by popularity, by age at the cut, and those without an event."""
    positives = log.positives()
    counts = np.bincount(positives.item, minlength=len(catalogue))
    masks = slices.item_popularity(counts)
    masks |= slices.bands("item_age", (log.until_us - catalogue.published_us) / DAY_US, ITEM_AGE_D)
    return masks


def creator_groups(log: Log, catalogue: Catalogue) -> Masks:
    """bool [N], creators by what their items brought before the cut: large ones make half of it; the others have
    some; new ones none. Empty where items have no creator."""
    if not len(catalogue.creators):
        return {}
    owner = catalogue.creator
    events = np.bincount(log.positives().item, minlength=len(catalogue))
    counts = np.bincount(owner[owner >= 0], events[owner >= 0], minlength=len(catalogue.creators))
    order = np.argsort(-counts, kind="stable")
    before = np.empty(len(counts))
    before[order] = (np.cumsum(counts[order]) - counts[order]) / max(float(counts.sum()), 1.0)
    large = (counts > 0) & (before < CREATOR_HEAD)
    groups = {"large": large, "small": (counts > 0) & ~large, "new": counts == 0}
    return {f"creators={name}": (owner >= 0) & mask[np.maximum(owner, 0)] for name, mask in groups.items()}
