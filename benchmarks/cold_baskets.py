"""Newcomers who buy in baskets: what their first ones are worth, on a generated world.

    python -m benchmarks.cold_baskets

A world of `data synth` whose moments are rounded down to half a day: what a person does in that time has one moment, as
the lines of an invoice have. Retrieval models fitted on the first half of the rows, no ranker; all who come later are
asked as training/study/cold.py does it.
"""

import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from bentos.recommender.assemble import load_models
from bentos.recommender.funnel import Funnel
from contracts.dataset import INTERACTIONS, DatasetConfig
from features.offline.items import item_features_as_of
from features.ranking import row_schema
from features.registry import REGISTRY
from training.bundles import popular
from training.data import synth
from training.holdout import time_of_share
from training.interactions import HOUR_US, Items, read_log
from training.retrieval import fit_retrieval
from training.study.cold import ColdUsers, cold_users

BASKET_US = 12 * HOUR_US


def in_baskets(folder: Path) -> None:
    """Round all moments of a data set down."""
    table = pq.read_table(folder / INTERACTIONS)
    at = table.column_names.index("timestamp")
    moments = pc.multiply(pc.divide(table["timestamp"].cast(pa.int64()), BASKET_US), BASKET_US)
    pq.write_table(table.set_column(at, "timestamp", moments.cast(table.schema.field(at).type)), folder / INTERACTIONS)


def measure(root: Path, *, users: int = 3_000, items: int = 800, days: int = 30, seed: int = 5) -> ColdUsers:
    folder = root / "world"
    synth.write(folder, users=users, items=items, days=days, seed=seed)
    in_baskets(folder)
    config, cut_us = DatasetConfig.read(folder), time_of_share(folder, 0.5)
    bundle = fit_retrieval(
        folder,
        config,
        cut_us,
        seed,
        root / "retrieval",
        item_features=item_features_as_of(folder, cut_us),
        feature_hash=REGISTRY.hash,
        signature=row_schema().signature,
    )
    models = load_models({"retrieval": bundle.folder, "ranking": None, "fallback": None})
    n = len(models.catalogue)
    log = read_log(folder, config, Items(models.catalogue, [""] * n, np.ones(n, bool)), cut_us)
    everybodys = popular(log, models.catalogue).astype(np.int64)
    funnel = Funnel(models, None)
    return cold_users(folder, config, log, funnel, everybodys, cut_us, synth.END_US, seed=seed, most_users=users)


def main() -> None:
    with tempfile.TemporaryDirectory() as temporary:
        found = measure(Path(temporary))
    print(f"{found.found} new users; ndcg@10")
    for name, estimates in found.setups.items():
        ndcg = estimates["ndcg@10"]
        print(f"{name:38} {ndcg.value:.4f} ± {ndcg.se:.4f} of {ndcg.n}")


if __name__ == "__main__":
    main()
