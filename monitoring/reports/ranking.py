"""How well the slates of a window ranked what was acted on. Ours: Evidently's ranks are off by one (2 … k + 1).

A metric is over answers with at least one positive among the items shown. The binary NDCG is Järvelin & Kekäläinen's
(2002): a hit at place p counts 1 / log2(p + 1), and the ideal puts all hits of the slate first. n rows.
"""

from dataclasses import asdict, dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc


@dataclass(frozen=True, slots=True)
class Ranking:
    """answers: with a known label; acted_on: of them, with a positive. The rest is None without any."""

    answers: int
    acted_on: int
    ctr: float | None
    ndcg: float | None
    mrr: float | None
    first_place: float | None  # share of the positives that were at place 1

    def document(self) -> dict[str, float | int | None]:
        return asdict(self)


def ranking(labelled: pa.Table) -> Ranking:
    """labelled: `request_id`, `position` (from 1), `label` (null: not known)."""
    known = labelled.filter(pc.is_valid(labelled["label"]))
    if not known.num_rows:
        return Ranking(0, 0, None, None, None, None)
    codes = pc.dictionary_encode(known["request_id"].combine_chunks()).indices.to_numpy()
    label = np.asarray(known["label"].cast(pa.float64()).to_numpy())
    place = np.asarray(known["position"].cast(pa.float64()).to_numpy())
    n = int(codes.max()) + 1
    hits = np.bincount(codes, label, n)
    acted = hits > 0
    ctr = float(label.mean())
    if not acted.any():
        return Ranking(n, 0, ctr, None, None, None)
    gain = np.bincount(codes, label / np.log2(place + 1), n)
    ideal = np.cumsum(1 / np.log2(np.arange(2, int(hits.max()) + 2)))[hits[acted].astype(np.int64) - 1]
    first = np.full(n, np.inf)
    np.minimum.at(first, codes[label > 0], place[label > 0])
    return Ranking(
        n,
        int(acted.sum()),
        ctr,
        float((gain[acted] / ideal).mean()),
        float((1 / first[acted]).mean()),
        float((place[label > 0] == 1).mean()),
    )
