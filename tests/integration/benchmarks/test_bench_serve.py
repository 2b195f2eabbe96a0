"""The whole of `streamrec bench serve` on a tiny world: figures of a real service, none of them judged."""

import asyncio
import json
import sqlite3

import pytest
from typer.testing import CliRunner

from benchmarks.reference_home import Size, reference
from benchmarks.reference_ranker import SMALL
from bentos.recommender.assemble import load_models
from bentos.recommender.funnel import Funnel
from bentos.recommender.rules import default_rules
from bentos.recommender.types import Query
from cli.main import app
from features.online.sqlite import SqliteStore

TINY = Size(users=60, items=400, categories=8, creators=20, graph_dim=32, ranker=SMALL)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


def test_the_store_of_the_reference_world_knows_every_user_and_nothing_is_stale(cache):
    made = reference(TINY, cache)
    with sqlite3.connect(made.stores / "online.db") as db:
        assert db.execute("SELECT count(*) FROM users").fetchone() == (60,)
    models = load_models({kind: made.world / kind for kind in ("retrieval", "ranking", "fallback")})
    assert models.problems == {}
    store, funnel = SqliteStore(made.stores), Funnel(models, default_rules())
    snapshot = store.read_item_snapshot()
    assert snapshot is not None
    funnel.set_items(snapshot)
    state = asyncio.run(store.read_user("u5"))
    slate = funnel.run(Query("r", "u5", 20, models.now_us(), float("inf"), {"country": "DE"}), state)
    store.close()
    assert (slate.degradation, slate.stale, slate.notes) == ("full", (), ())
    assert {used.source for used in slate.used if used.name.startswith("user_")} == {"store"}
    assert reference(TINY, cache) == made


def test_it_measures_a_real_service_and_names_a_peer_that_is_not_installed(cache, tmp_path, monkeypatch):
    monkeypatch.setenv("STREAMREC_HOME", str(cache))
    monkeypatch.setattr("benchmarks.contestants.ENVIRONMENTS", tmp_path / "nowhere")
    target = tmp_path / "found.json"
    words = ["--users", "60", "--items", "400", "--pairs", "1", "--seconds", "1", "--no-extras", "--peers", "fastapi"]
    done = CliRunner().invoke(app, ["bench", "serve", *words, "--save", str(target), "--json"])
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert found == json.loads(target.read_text())
    assert found["any_rung_rps"] >= found["throughput_rps"] >= 0  # a busy machine may leave no time for full ones
    assert found["half_rate_rps"] == pytest.approx(max(1.0, found["throughput_rps"] / 2), abs=0.01)
    assert found["p50_ms"] is None or found["p50_ms"] <= found["p99_ms"]
    assert found["cpu_ms_per_request"] > 0
    assert sum(found["rungs"].values()) > 0
    assert set(found["half_rungs"]) <= {"full", "stale_features", "simple_ranking", "batch", "cached", "popularity"}
    assert {"rank", "source.two_tower", "merge"} <= set(found["stages_ms"])
    assert found["peers"]["fastapi"] == {"not_installed": "benchmarks/peers/setup fastapi"}
    assert any("worker" in p["process"] and p["pss_mib"] > 0 and p["cpu_s"] > 0 for p in found["processes"])


def test_a_peer_that_does_not_exist_is_a_wrong_word():
    done = CliRunner().invoke(app, ["bench", "serve", "--peers", "django"])
    assert done.exit_code == 2


def test_batch_runs_over_the_same_world(cache, monkeypatch):
    monkeypatch.setenv("STREAMREC_HOME", str(cache))
    words = ["--users", "60", "--items", "400", "--count", "20", "--processes", "1", "--json"]
    done = CliRunner().invoke(app, ["bench", "batch", *words])
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert found["users_per_s"] > 0
    assert found["runs"][0]["degradation"] == {"full": 20}


def test_growth_of_candidates_is_a_table_beside_the_peers_funnel(cache, monkeypatch):
    monkeypatch.setenv("STREAMREC_HOME", str(cache))
    words = ["--users", "60", "--items", "400", "--pairs", "2", "--growth", "candidates", "--steps", "20,50", "--json"]
    done = CliRunner().invoke(app, ["bench", "serve", *words])
    assert done.exit_code == 0, done.output
    steps = json.loads(done.stdout)["steps"]
    assert [step["candidates"] for step in steps] == [20, 50]
    assert all(step["ours_cpu_ms"] > 0 and step["peer_cpu_ms"] > 0 and step["ratio"]["n"] == 2 for step in steps)


def test_retrieve_compares_searches_over_catalogues_of_any_size():
    words = ["--items", "2000", "--queries", "10", "--pairs", "2", "--json"]
    done = CliRunner().invoke(app, ["bench", "retrieve", *words])
    assert done.exit_code == 0, done.output
    (one,) = json.loads(done.stdout)["nearest"]
    assert one["items"] == 2000
    assert one["contestants"]["ours"]["recall_at_200"] > 0.9
