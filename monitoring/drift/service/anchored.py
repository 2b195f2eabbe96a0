"""What people did in a window, beside the ranker's first window of that length: an anchor, so that what has got worse
does not become what it is measured against.
"""

from pathlib import Path

import pyarrow as pa

from monitoring.drift.service.labelled import LabelSource, first_served

LEAST_SHARE = 0.25  # of the window's length, that the first one must have at least


def anchored(
    home: Path, labels: LabelSource, ranker: str, bento: str, since_us: int, until_us: int
) -> tuple[pa.Table, pa.Table] | str:
    """Rows of the first window and of this one, as `labels` gives them; words: why there is nothing to compare with.

    Raises:
        StreamRecError, OSError, pyarrow.ArrowException: a log cannot be read.
    """
    first_us = first_served(home, ranker, bento, until_us)
    length = until_us - since_us
    end_us = min((first_us or since_us) + length, since_us)
    if first_us is None or end_us - first_us < LEAST_SHARE * length:
        return "this ranker has not served before this window for long enough to be compared with itself"
    return labels(first_us, end_us, ranker), labels(since_us, until_us, ranker)
