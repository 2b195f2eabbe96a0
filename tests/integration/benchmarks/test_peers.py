"""The peers do the same work: their funnel brings the project's own candidates and scores, over the same artefacts."""

import asyncio
import sys

import numpy as np
import pytest

from benchmarks.contestants import PEERS, PEERS_CODE
from benchmarks.reference_home import Size, reference
from benchmarks.reference_ranker import SMALL
from bentos.recommender.assemble import load_models
from bentos.recommender.funnel import Funnel
from bentos.recommender.rules import default_rules
from bentos.recommender.types import Query
from features.online.sqlite import SqliteStore

CONTEXT = {"device": "ios", "country": "DE"}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    size = Size(users=40, items=3_000, categories=12, creators=40, graph_dim=32, ranker=SMALL)
    return reference(size, tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def peer(made):
    sys.path.insert(0, str(PEERS_CODE / "shared"))
    try:
        import funnel
    finally:
        sys.path.pop(0)
    items = funnel.Items(made.world, made.stores)
    return funnel, items, funnel.Users(made.world, made.stores, items), funnel.Retrieval(made.world, items)


@pytest.fixture(scope="module")
def own(made):
    models = load_models({kind: made.world / kind for kind in ("retrieval", "ranking", "fallback")})
    store, funnel = SqliteStore(made.stores), Funnel(models, default_rules())
    funnel.set_items(store.read_item_snapshot())
    yield funnel, store, models
    store.close()


@pytest.mark.parametrize("user_id", ["u0", "u1", "u5", "u17", "nobody"])
def test_the_peers_retrieval_brings_the_same_candidates(made, peer, own, user_id):
    """Of a user with a session a few differ: the project asks three sources before it knows the session."""
    _, _, users, retrieval = peer
    funnel, store, models = own
    query = Query("r", user_id, 20, models.now_us(), float("inf"), CONTEXT)
    _, expected = funnel.candidates(query, asyncio.run(store.read_user(user_id)))
    found = retrieval.candidates(users.read(user_id), CONTEXT)
    shared, ours, theirs = np.intersect1d(expected.items, found["items"], return_indices=True)
    if user_id == "nobody":
        assert len(shared) == len(expected) == len(found["items"])
        np.testing.assert_allclose(found["retrieval"][theirs], expected.retrieval[ours], atol=1e-5)
    assert len(shared) >= 0.98 * len(expected)
    apart = np.abs(found["retrieval"][theirs] - expected.retrieval[ours])
    assert np.count_nonzero(apart > 0.02) <= 5  # an item that one source more has brought
    np.testing.assert_allclose(found["vector"], expected.vector, atol=1e-5)


@pytest.mark.parametrize("user_id", ["u0", "u1", "u5", "u17", "nobody"])
def test_the_peers_ranker_gives_the_same_rows_and_scores_for_the_same_candidates(made, peer, own, user_id):
    module, items, users, _ = peer
    funnel, store, models = own
    query = Query("r", user_id, 20, models.now_us(), float("inf"), CONTEXT)
    user, expected = funnel.candidates(query, asyncio.run(store.read_user(user_id)))
    known, ranking = users.read(user_id), module.Ranking(made.world, items)
    given = {name: getattr(expected, name) for name in ("items", "retrieval", "by_source", "brought", "vector")}
    given |= {name: given[name][:, : len(module.SOURCES)] for name in ("by_source", "brought")}
    rows = funnel.rows(query, user, expected)
    np.testing.assert_allclose(ranking.rows(known, CONTEXT, given), rows, atol=1e-4, rtol=1e-4)
    slate = funnel.run(query, user.state)
    np.testing.assert_allclose(ranking.score(known, CONTEXT, given).max(), max(s for _, s in slate.top), atol=1e-3)
    np.testing.assert_allclose(module.Fallback(made.world, items).score(rows), models.light.score(rows), atol=1e-5)


def test_the_peers_slates_are_mostly_the_project_s_own(made, peer, own):
    """The project's rules look at all candidates and choose exactly, the peers' greedily among the 50 best."""
    module, items, users, retrieval = peer
    funnel, store, models = own
    ranking = module.Ranking(made.world, items)
    shared = []
    for user_id in ("u0", "u1", "u5", "u17"):
        known = users.read(user_id)
        found = retrieval.candidates(known, CONTEXT)
        slate = module.slate(items, found, ranking.score(known, CONTEXT, found), 20)
        assert [item["position"] for item in slate] == list(range(1, 21))
        query = Query("r", user_id, 20, models.now_us(), float("inf"), CONTEXT)
        own_slate = funnel.run(query, asyncio.run(store.read_user(user_id)))
        shared.append(len({item["item_id"] for item in slate} & set(own_slate.item_ids)))
    assert np.mean(shared) >= 15


@pytest.mark.parametrize("name", PEERS)
def test_every_peer_is_locked_to_exact_versions(name):
    lines = [line for line in (PEERS_CODE / name / "requirements.txt").read_text().splitlines() if line[0] != "#"]
    assert len(lines) > 10
    assert [line for line in lines if "==" not in line] == []
