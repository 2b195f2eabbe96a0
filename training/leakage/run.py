"""All leakage checks of a training but the one on features, which stands in training/checks.py."""

from pathlib import Path

from contracts.dataset import DatasetConfig
from contracts.evidence import Check
from training.leakage.across import rows_across
from training.leakage.duplicates import no_duplicates
from training.leakage.ids import ids_tell_nothing
from training.leakage.overlap import Sides, no_overlap
from training.leakage.shuffled import rankers_again, shuffled_labels
from training.leakage.single_feature import no_feature_too_good
from training.models.dcn_v2 import DcnConfig
from training.models.trees import TreesConfig
from training.ranking import Rankers


def leakage_checks(
    folder: Path,
    config: DatasetConfig,
    cut_us: int,
    to_us: int,
    rankers: Rankers,
    found: Sides | None,
    *,
    dcn: DcnConfig,
    trees: TreesConfig,
    seed: int,
) -> list[Check]:
    """Seconds, whatever the size: each looks at a bounded number of rows. found: None without a test window."""
    across = rows_across(folder, config, cut_us, to_us)
    return [
        ids_tell_nothing(across),
        no_duplicates(across),
        no_overlap(rankers.learned_users, rankers.held_out_users, found),
        no_feature_too_good(rankers.studied, rankers.schema, seed=seed),
        shuffled_labels(
            rankers.studied, rankers_again(rankers.schema, rankers.ranker.name, dcn, trees, seed), seed=seed
        ),
    ]
