"""All leakage checks of a training."""

from pathlib import Path

from contracts.dataset import DatasetConfig
from contracts.evidence import Check
from registry.artifacts import Bundle
from training.leakage.across import rows_across
from training.leakage.duplicates import no_duplicates
from training.leakage.future import another_future, future_changes_nothing
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
    retrieval: Bundle,
    rankers: Rankers,
    found: Sides | None,
    ranker_auc: float,
    *,
    dcn: DcnConfig,
    trees: TreesConfig,
    seed: int,
) -> list[Check]:
    """Seconds, whatever the size: each looks at a bounded number of rows.

    retrieval: fitted on the rows before the cut. found, ranker_auc: None and NaN without a test window.
    """
    across = rows_across(folder, config, cut_us, to_us)
    future = another_future(folder, config, cut_us, to_us, retrieval, seed=seed)
    return [
        future_changes_nothing(future, ranker_auc),
        ids_tell_nothing(across),
        no_duplicates(across),
        no_overlap(rankers.learned_users, rankers.held_out_users, found),
        no_feature_too_good(rankers.studied, rankers.schema, seed=seed),
        shuffled_labels(future.rows, rankers_again(rankers.schema, rankers.ranker.name, dcn, trees, seed), seed=seed),
    ]
