"""What the funnel is made of: the only place to register a source, a filter, a scorer or a re-ranker."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from bentos.recommender.ann import EXACT_UP_TO
from bentos.recommender.breaker import DEPENDENCY, BreakerPolicy
from bentos.recommender.filters.base import Filter
from bentos.recommender.filters.excluded import Excluded
from bentos.recommender.filters.flagged import Flagged
from bentos.recommender.filters.seen import Seen
from bentos.recommender.filters.unpublished import Unpublished
from bentos.recommender.models import Models, RetrievalModels
from bentos.recommender.rankers.base import Scorer
from bentos.recommender.rankers.retrieval import RetrievalOrder
from bentos.recommender.rankers.rows import RowRanker
from bentos.recommender.rerank.base import Reranker
from bentos.recommender.rerank.promote import Promote
from bentos.recommender.rerank.window import Window
from bentos.recommender.sources.content import Content
from bentos.recommender.sources.graph import Graph
from bentos.recommender.sources.item_item import ItemItemSource
from bentos.recommender.sources.trending import Trending
from bentos.recommender.sources.two_tower import TwoTower
from bentos.recommender.types import Source
from contracts.budgets import Budgets
from contracts.catalogue import Catalogue
from contracts.errors import ArtifactError
from contracts.rules import RulesDocument
from contracts.serving import SOURCES

# source → its guaranteed share of the union; where they do not all fit, the best by merged score are in
QUOTAS: Mapping[str, int] = {"two_tower": 200, "graph": 150, "content": 100, "trending": 50, "item_item": 200}


@dataclass(frozen=True, slots=True)
class FunnelConfig:
    """depth: how far a source reads, in quotas, as sources overlap; large_depth: the same in a catalogue too large for
    exact search, where they overlap less and every neighbour more costs time (ADR 0016).
    """

    quotas: Mapping[str, int] = field(default_factory=lambda: QUOTAS)
    total: int = 500
    depth: float = 4.0
    large_depth: float = 1.5
    agreement: float = 1.5
    budgets: Budgets = field(default_factory=Budgets)
    breaker: BreakerPolicy = DEPENDENCY
    cached_slates: int = 2_000

    def reach(self, source: str, n_items: int) -> int:
        """How many items a source is asked for in a catalogue of so many."""
        return round((self.depth if n_items <= EXACT_UP_TO else self.large_depth) * self.quotas[source])


# name → what makes it from loaded models; `ArtifactError` where its part is missing
BUILDERS: Mapping[str, Callable[[RetrievalModels, Catalogue], Source]] = {
    "two_tower": lambda models, catalogue: TwoTower(models),
    "graph": lambda models, catalogue: Graph(models),
    "content": Content,
    "trending": lambda models, catalogue: Trending(models),
    "item_item": lambda models, catalogue: ItemItemSource(models),
}
NEED_SESSION = frozenset({"two_tower", "item_item"})


def sources(models: Models) -> dict[str, Source]:
    """The sources whose models are there, in the order of `contracts.serving.SOURCES`; the others become problems, but
    for those that the bundle was made without."""
    built: dict[str, Source] = {}
    if models.retrieval is None:
        return built
    for name in SOURCES:
        if name in models.retrieval.made_without:
            continue
        try:
            built[name] = BUILDERS[name](models.retrieval, models.catalogue)
        except ArtifactError as error:
            models.problems.setdefault(f"retrieval.{name}", error.message)
    return built


def filters(models: Models, rules: RulesDocument) -> list[Filter]:
    """Each alone keeps its promise, whatever the sources did."""
    return [Flagged(models.catalogue), Unpublished(models.catalogue), Excluded(), Seen(rules)]


def scorers(models: Models) -> list[Scorer]:
    """Best first: the next one takes over where one is missing or fails."""
    return [RowRanker(models.ranked_by, models.ranker), RowRanker("logistic", models.light), RetrievalOrder()]


def rerankers(models: Models, rules: RulesDocument) -> list[Reranker]:
    exposure = None if models.retrieval is None else models.retrieval.creator_exposure
    return [Promote(models.catalogue, rules), Window(models.catalogue, rules, exposure)]
