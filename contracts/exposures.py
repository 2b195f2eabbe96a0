"""The two records of an answer.

`Exposure`: once a request, by the front process, never sampled. `ContextRecord`: what a replay needs, sampled and
droppable. Both carry `schema`; readers refuse a schema they do not know.
"""

from collections.abc import Sequence
from itertools import accumulate

import msgspec

from contracts.ids import PackedIds
from contracts.serving import Aim, Degradation, Outcome, Variant

EXPOSURE_SCHEMA = 2  # 1 had no `states`
CONTEXT_SCHEMA = 3  # 1 had nothing from `aim` on, 2 nothing `packed`


class Versions(msgspec.Struct, frozen=True):
    """What made the answer. Empty where there is none (no routing table without a gateway)."""

    bento: str
    retrieval: str
    ranking: str
    fallback: str
    rules: str
    routing_table: str = ""
    features: str = ""  # hash of the feature definitions
    item_snapshot: str = ""  # which materialised item features


class States(msgspec.Struct, frozen=True, omit_defaults=True):
    """What may change under a running Bento, as it stood for one answer: with the Bento, the record and these, a replay
    has all that the answer hung on. Nothing in the funnel is drawn at random, so there is no seed.

    Empty or 0: there was none. Moments are on the data set's clock, but for `counts`.
    """

    catalogue: str = ""  # which file of the live catalogue
    flags: int = 0  # its version: what was flagged and removed
    flags_until: int = 0  # its version when the answer was made, where it changed meanwhile
    facts: int = 0  # its version that was laid over the Bento's own items,
    facts_us: int = 0  # and when
    snapshot: str = ""  # item features of the online store,
    snapshot_items: int = 0  # read for a catalogue of so many items
    counts: int = 0  # what was done with each item lately, by its moment on the wall clock,
    counts_us: int = 0  # and when models and features were made of it,
    counts_snapshot: str = ""  # over which item features
    counts_items: int = 0
    missing: tuple[str, ...] = ()  # parts of the Bento that could not be loaded
    topology: str = ""
    machine: str = ""  # instruction set, and what computes with it
    threads: int = 1  # of a matrix product: another number may add in another order


class Exposure(msgspec.Struct, frozen=True):
    request_id: str  # UUIDv7
    timestamp_us: int  # wall clock
    clock_us: int  # the data set's clock
    unit: str  # the unit of assignment: the user, unless an experiment says otherwise
    user_id: str
    assigned: Variant
    served: Variant
    probability: float  # of the assigned variant
    exploration: bool
    slate_propensity: float | None  # None: the policy is deterministic
    outcome: Outcome
    degradation: Degradation
    item_ids: list[str]
    versions: Versions
    experiments: dict[str, str] = {}
    batch_age_s: float | None = None  # of the rung `batch`: how old the list was
    states: States | None = None  # None: a last resort of the gateway's own, or a Bento that does not say
    schema: int = EXPOSURE_SCHEMA


class FeatureUsed(msgspec.Struct, frozen=True):
    name: str
    value: float | str | Sequence[float | str] | dict[str, float] | None
    age_s: float | None  # None: never written
    source: str  # `store`, `default`


class ShownRows(msgspec.Struct, frozen=True):
    """What the ranker read of the items that were shown first, as it read it: the values themselves, not their sources.

    rows: float32 [n, F], little-endian, row after row; the columns are those of `features.ranking.row_schema`, whose
    signature begins with `signature`. categories: words, since the column holds a hash of them.
    """

    item_ids: list[str]
    categories: list[str]
    scores: list[float]
    signature: str
    rows: bytes


class PackedCandidates(msgspec.Struct, frozen=True):
    """counts: source → how many of the ids, which come one source after the other, best first."""

    counts: dict[str, int]
    ids: PackedIds

    def unpacked(self) -> dict[str, list[str]]:
        ids, ends = self.ids.unpacked(), accumulate(self.counts.values())
        return {source: ids[end - n : end] for (source, n), end in zip(self.counts.items(), ends, strict=True)}


class ContextRecord(msgspec.Struct, frozen=True):
    request_id: str
    timestamp_us: int
    clock_us: int
    user_id: str
    k: int
    context: dict[str, str]
    exclude: list[str]
    features: list[FeatureUsed]
    candidates: dict[str, list[str]]  # source → item ids, best first
    top_item_ids: list[str]  # the first 50 after ranking
    top_scores: list[float]
    digest: str  # SHA-256 over all ranked candidates and scores
    ranked_by: str
    stages_ms: dict[str, float]
    notes: list[str] = []  # late sources, relaxed rules, fallbacks
    shown: ShownRows | None = None  # of a share of the records (`log_rows`); None where no ranker's rows were made
    aim: Aim = "full"  # the rung that it started at
    degradation: str = ""  # what it came to
    stale: list[str] = []  # features that were too old, `online_store`
    last: list[str] = []  # the user's last interactions, where they were too old to be a feature
    lists: str = ""  # which published lists the store held
    item_ids: list[str] = []  # the slate
    scores: list[float] = []  # of the slate
    versions: Versions | None = None
    states: States | None = None
    # All candidates, on a sample (STREAMREC_LOG_CANDIDATES): scores aligned with `candidates`, then all as ranked.
    candidate_scores: dict[str, list[float]] = {}
    ranked_item_ids: list[str] = []
    ranked_scores: list[float] = []
    packed: PackedCandidates | None = None  # `candidates` on their way to a reader, who finds them there
    schema: int = CONTEXT_SCHEMA
