"""Parts of a real funnel are taken away: the figures are those of a funnel that never had them."""

import asyncio
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from benchmarks.reference_world import NOW_US, write_world
from bentos.recommender.assemble import load_models
from bentos.recommender.funnel import Funnel
from bentos.recommender.rankers.base import Rows
from bentos.recommender.rules import default_rules
from bentos.recommender.types import Candidates, Query
from contracts.serving import SOURCES, RankedBy
from features.online.base import Interaction, UserState
from features.ranking import row_schema, rows
from training.ablation.groups import COSTED, TASTE, feature_groups, group_of
from training.ablation.result import Ablated, AblationConfig, Ablations
from training.ablation.run import ablate, rules_off
from training.evaluate import ask
from training.evaluation import metrics
from training.evaluation.metrics import Estimate, Targets, pad
from training.evaluation.protocol import TestSet

USERS = 12
ITEMS = 1_500  # three times what a union holds
IDS = [f"u{n}" for n in range(USERS)]


@dataclass
class Asked:
    funnel: Funnel
    states: Mapping[str, UserState]
    test: TestSet
    met: csr_matrix

    def queries(self) -> list[tuple[Query, UserState]]:
        return [(ask(name, NOW_US, np.empty(0, np.int32)), self.states[name]) for name in IDS]

    def ndcg(self, slates: Sequence[Sequence[str]]) -> float:
        lists = pad([self.funnel.models.index.lookup_many(slate) for slate in slates], 10)
        return float(metrics.ndcg(metrics.hits(lists, self.test.targets), self.test.targets.counts).mean())

    def ablated(self, users: int = USERS) -> Ablations:
        found = ablate(
            self.funnel, self.states, self.test, IDS, self.met, NOW_US, config=AblationConfig(users=users), seed=0
        )
        assert found is not None
        return found


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Mapping[Any, Path]:
    return write_world(tmp_path_factory.mktemp("world"), users=30, items=ITEMS)


@pytest.fixture
def asked(folders: Mapping[Any, Path]) -> Asked:
    """Everybody wants the third and the eighth of what they are shown, and something that one source alone brings."""
    models = load_models(folders, threads=1)
    funnel = Funnel(models, default_rules())
    item_ids = models.catalogue.item_ids
    states = {
        name: UserState(name, last=(Interaction(item_ids[17 * n], "click", NOW_US - 10**9),))
        for n, name in enumerate(IDS)
    }
    wanted = []
    for name in IDS:
        query = ask(name, NOW_US, np.empty(0, np.int32))
        slate = funnel.run(query, states[name])
        union = funnel.candidates(query, states[name])[1]
        alone = union.brought[:, SOURCES.index("two_tower")] & (union.brought.sum(axis=1) == 1)
        shown = models.index.lookup_many([slate.item_ids[2], slate.item_ids[7]])
        wanted.append([*shown, union.items[alone & ~np.isin(union.items, shown)][-1]])
    targets = Targets.of(np.repeat(np.arange(USERS), 3), np.array(wanted, np.int64).ravel(), USERS)
    return Asked(
        funnel, states, TestSet(np.arange(USERS), targets, ITEMS), csr_matrix((USERS, ITEMS), dtype=np.float32)
    )


def value(found: Ablations, kind: Any, name: str) -> Ablated:
    return next(part for part in found.of(kind) if part.name == name)


class Store:
    def __init__(self, states: Mapping[str, UserState]) -> None:
        self._states = states

    async def read_user(self, user_id: str) -> UserState:
        return self._states[user_id]


def test_without_a_source_the_figure_is_that_of_a_request_with_the_source_switched_off(asked: Asked):
    found = asked.ablated()
    sources = tuple(asked.funnel.stages.retrieval.sources)
    assert {part.name for part in found.of("source")} == set(sources)
    assert found.whole.value == pytest.approx(
        asked.ndcg([asked.funnel.run(*pair).item_ids for pair in asked.queries()])
    )
    for name in sources:
        off = [
            asyncio.run(asked.funnel.recommend(replace(query, sources_off=(name,)), Store(asked.states))).item_ids
            for query, _ in asked.queries()
        ]
        part = value(found, "source", name)
        assert part.value.value == pytest.approx(asked.ndcg(off)), name
        assert part.change.value == pytest.approx(part.value.value - found.whole.value)
        assert part.cost_us > 0
    # A third of the wishes is brought by it alone.
    assert value(found, "source", "two_tower").recall_change.value < -0.2


def test_without_a_rule_the_figure_is_that_of_a_funnel_under_a_document_without_it(asked: Asked):
    found = asked.ablated()
    off = rules_off(default_rules())
    assert set(off) == {"category_cap", "fresh_floor", "creator_floor", "promoted_boost", "all rules"}
    for name, document in off.items():
        other = asked.funnel.under(document)
        slates = [other.run(*pair).item_ids for pair in asked.queries()]
        assert value(found, "rule", name).value.value == pytest.approx(asked.ndcg(slates)), name
    assert value(found, "rule", "all rules").shown["categories"] <= found.shown["categories"]


def test_a_rule_that_is_not_in_force_is_not_ablated():
    document = default_rules().model_copy(update={"promoted_boost": 1.0, "fresh_floor": 0, "creator_floor": 0})
    assert set(rules_off(document)) == {"category_cap"}


class ByOneColumn:
    """A ranker that reads one column and nothing else."""

    name: RankedBy = "dcn"
    ready = True

    def __init__(self, column: str) -> None:
        self._at = row_schema().at(column)

    def score(self, candidates: Candidates, rows: Rows) -> NDArray[np.float32]:
        return 1 / (1 + np.exp(-rows()[:, self._at]))


def test_only_the_group_that_the_ranker_reads_is_missed(asked: Asked):
    asked.funnel.stages.scorers[0] = ByOneColumn("log_item_pop_total")  # type: ignore[call-overload]
    slates = [asked.funnel.run(*pair).item_ids for pair in asked.queries()]
    first = asked.funnel.models.index.lookup_many([slate[0] for slate in slates])
    asked.test = TestSet(np.arange(USERS), Targets.of(np.arange(USERS), first.astype(np.int64), USERS), ITEMS)
    found = asked.ablated()
    assert found.whole.value == 1.0
    group = group_of("log_item_pop_total")
    assert value(found, "features", group).change.value < -0.5
    assert found.verdict(value(found, "features", group)) == "earns its place"
    others = [part for part in found.of("features") if part.name != group]
    assert {part.change.value for part in others if not part.why} == {0.0}


def test_a_group_with_inputs_of_its_own_has_a_cost_and_the_others_say_what_they_read(asked: Asked):
    found = asked.ablated()
    costed = {part.name for part in found.of("features") if math.isfinite(part.cost_us)}
    assert costed == set(COSTED) <= set(feature_groups(row_schema()))
    assert found.shared_us > 0
    assert value(found, "features", "clock").inputs == ("request.time",)


def test_rows_without_the_inputs_of_a_group_lack_that_group_alone(asked: Asked):
    query, state = asked.queries()[0]
    user, union = asked.funnel.candidates(query, state)
    made_of = asked.funnel.stages.row_inputs(query, user, union)
    columns = feature_groups(row_schema())
    for name, (having, lacking) in COSTED.items():
        one, other = rows(**{**made_of, **having}), rows(**{**made_of, **lacking})
        own = list(columns[name])
        assert not other[:, own].any()
        changed = np.flatnonzero((one != other).any(axis=0))
        # Taste reads the history, of which the user's own columns tell too.
        allowed = [*own, *(columns["activity of the user"] if name == TASTE else ())]
        assert set(changed) <= set(allowed), [row_schema().names[at] for at in changed]


def test_what_is_the_same_for_all_is_said_to_be_and_not_called_useless(asked: Asked):
    clock = value(asked.ablated(), "features", "clock")
    assert "the same for all" in clock.why
    assert math.isnan(clock.change.value)


def test_the_same_seed_asks_the_same_people_and_nobody_gives_no_table(asked: Asked):
    one, two = asked.ablated(users=5), asked.ablated(users=5)
    assert one.whole.n == 5
    assert [part.value for part in one.of("features")] == [part.value for part in two.of("features")]
    nobody = ablate(
        asked.funnel, asked.states, asked.test, IDS, asked.met, NOW_US, config=AblationConfig(users=0), seed=0
    )
    assert nobody is None


def test_every_column_is_in_one_group():
    columns = [at for group in feature_groups(row_schema()).values() for at in group]
    assert sorted(columns) == list(range(len(row_schema().columns)))
    assert group_of("graph_history_max") == "likeness by graph"
    assert group_of("history_length") == "activity of the user"


def part(kind: Any, change: float, se: float, recall: float = math.nan) -> Ablated:
    return Ablated(kind, "x", Estimate(0.1, 0.01, 9), Estimate(change, se, 9), Estimate(recall, 0.001, 9), 1.0)


@pytest.mark.parametrize(
    ("change", "se", "recall", "verdict"),
    [
        (-0.02, 0.005, math.nan, "earns its place"),
        (0.02, 0.005, math.nan, "does harm"),
        (-0.011, 0.005, math.nan, "inconclusive"),  # 2.2 errors are too few where twenty lines are looked at
        (0.001, 0.005, -0.05, "earns its place"),
        (0.02, 0.005, -0.05, "does harm"),  # what is shown goes before what could be
        (0.0, 0.0, 0.0, "inconclusive"),
    ],
)
def test_a_verdict_is_beyond_the_chance_of_the_whole_table(change: float, se: float, recall: float, verdict: str):
    looked_at = part("source", change, se, recall)
    others = tuple(part("features", 0.0, 0.005) for _ in range(19))
    table = Ablations((looked_at, *others), Estimate(0.1, 0.01, 9), Estimate(0.5, 0.01, 9), {}, 1.0, 1.0, 1.0, 0.0)
    assert table.verdict(looked_at) == verdict
    assert table.verdict(part("rule", change, se)) is None
