"""Batch scoring by the funnel that serves, over a small synthetic world."""

import asyncio
import json
import math
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from benchmarks.reference_world import NOW_US, write_world
from bentos.recommender.assemble import load_models
from bentos.recommender.funnel import Funnel
from bentos.recommender.rules import default_rules
from bentos.recommender.types import Query
from cli.main import app
from contracts.errors import ArtifactError, DataError, UsageError
from features.offline.items import item_features_as_of
from features.offline.states import user_states_as_of
from features.online.base import ItemSnapshot
from features.online.memory import MemoryStore
from features.online.sqlite import SqliteStore
from training import batch
from training.batch import SCHEMA, BatchResult, Job, publish, run

DAY_US = 86_400_000_000
USERS, N_ITEMS = 40, 300


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`bundles/` and `data/` over the same ids; user u0 has acted lately, u1 long ago, the rest at random."""
    folder = tmp_path_factory.mktemp("world")
    write_world(folder / "bundles", users=USERS, items=N_ITEMS)
    data = folder / "data"
    data.mkdir()
    rng = np.random.default_rng(1)
    users = ["u0", "u1", *(f"u{u}" for u in rng.integers(2, USERS, 600))]
    ages = [DAY_US, 100 * DAY_US, *rng.integers(1, 40 * DAY_US, 600).tolist()]
    times = pa.array([NOW_US - age for age in ages], pa.timestamp("us", tz="UTC"))
    items = [f"i{i}" for i in rng.integers(0, N_ITEMS, len(users))]
    pq.write_table(
        pa.table({"user_id": users, "item_id": items, "timestamp": times, "event": ["click"] * len(users)}),
        data / "interactions.parquet",
    )
    zero = pa.array([0] * N_ITEMS, pa.timestamp("us", tz="UTC"))
    ids = [f"i{i}" for i in range(N_ITEMS)]
    pq.write_table(
        pa.table({"item_id": ids, "category": ["c"] * N_ITEMS, "published_at": zero}), data / "items.parquet"
    )
    (data / "dataset.toml").write_text('name = "w"\nclock = "log_end"\n[[positives]]\nevent = "click"\n')
    return folder


@pytest.fixture
def job(world: Path) -> Job:
    folders = {kind: world / "bundles" / kind for kind in ("retrieval", "ranking", "fallback")}
    return Job(world / "data", folders, default_rules(), NOW_US, 10, "slate")  # type: ignore[arg-type]


def slates(path: Path) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for row in pq.read_table(path).to_pylist():
        found.setdefault(row["user_id"], []).append(row["item_id"])
    return found


def test_a_batch_slate_is_what_the_funnel_answers_with_features_as_of_the_moment(job: Job, tmp_path: Path) -> None:
    users = ["u0", "u7", "nobody", "u3"]
    result = run(job, users, tmp_path / "out.parquet")
    table = pq.read_table(tmp_path / "out.parquet")
    assert table.schema.equals(SCHEMA)
    assert list(slates(tmp_path / "out.parquet")) == users
    assert table["rank"].to_pylist() == list(range(1, 11)) * 4
    assert result.degradations == {"full": 4}

    models = load_models(job.folders)
    funnel = Funnel(models, job.rules)
    ids = list(models.catalogue.item_ids)
    columns = item_features_as_of(job.data, NOW_US, ids)
    funnel.set_items(ItemSnapshot("x", ids, columns, dict.fromkeys(columns, NOW_US)))
    states = user_states_as_of(job.data, users, NOW_US)
    for user in users:
        slate = funnel.run(Query("q", user, 10, NOW_US, math.inf), states[user])
        assert tuple(slates(tmp_path / "out.parquet")[user]) == slate.item_ids


def test_the_moment_hides_what_came_after_it(job: Job, tmp_path: Path) -> None:
    early = Job(job.data, job.folders, job.rules, NOW_US - 30 * DAY_US, job.k, job.stage)
    now, then = (run(j, ["u0"], tmp_path / f"{n}.parquet") for n, j in enumerate((job, early)))
    assert now.segments == {"u0": "active"}
    assert then.segments == {"u0": "new"}
    assert "u0" not in batch.users_of(job.data, NOW_US - 30 * DAY_US)
    with pytest.raises(DataError, match="no event before"):
        batch.users_of(job.data, NOW_US - 1_000 * DAY_US)


def test_the_file_does_not_depend_on_the_number_of_processes(job: Job, tmp_path: Path) -> None:
    users = batch.users_of(job.data, NOW_US)
    one, two = (run(job, users, tmp_path / f"{n}.parquet", processes=n) for n in (1, 2))
    assert (tmp_path / "1.parquet").read_bytes() == (tmp_path / "2.parquet").read_bytes()
    assert one.snapshot == two.snapshot
    assert one.segments == two.segments
    assert {one.segments["u0"], one.segments["u1"]} == {"active", "lapsed"}


def test_candidates_are_the_union_by_retrieval_score(job: Job, tmp_path: Path) -> None:
    wide = Job(job.data, job.folders, job.rules, NOW_US, 500, "candidates")
    run(wide, ["u5"], tmp_path / "out.parquet")
    table = pq.read_table(tmp_path / "out.parquet").to_pylist()
    assert len(table) > 100
    assert len({r["item_id"] for r in table}) == len(table)
    scores = [r["score"] for r in table]
    assert scores == sorted(scores, reverse=True)
    assert all(r["sources"] for r in table)


def test_a_batch_refuses_a_model_that_would_degrade_it(job: Job, tmp_path: Path) -> None:
    bare = Job(job.data, {"retrieval": job.folders["retrieval"]}, job.rules, NOW_US, 10, "slate")
    with pytest.raises(ArtifactError, match="ranking"):
        run(bare, ["u0"], tmp_path / "out.parquet")
    assert not list(tmp_path.iterdir())


def test_published_lists_are_read_with_what_made_them(job: Job, tmp_path: Path) -> None:
    result = run(job, ["u0", "u1", "nobody"], tmp_path / "out.parquet")
    store = MemoryStore()
    assert publish(result, store, "streamrec:abc") == 3
    wanted = slates(tmp_path / "out.parquet")
    for user, segment in (("u0", "active"), ("u1", "lapsed"), ("nobody", "new")):
        made = asyncio.run(store.read_user(user)).precomputed
        assert made is not None
        assert list(made.item_ids) == wanted[user]
        assert (made.snapshot, made.model, made.feature_time_us) == (result.snapshot, "streamrec:abc", NOW_US)
        assert made.segment == segment


def test_slates_are_read_for_publishing_across_row_groups(tmp_path: Path) -> None:
    users = [f"u{i}" for i in range(50) for _ in range(3)]
    table = pa.table(
        [users, [f"i{n}" for n in range(150)], [1, 2, 3] * 50, [0.5] * 150, [["graph"]] * 150], schema=SCHEMA
    )
    pq.write_table(table, tmp_path / "out.parquet", row_group_size=7)
    store = MemoryStore()
    publish(BatchResult(tmp_path / "out.parquet", "s", 1, 50, 150, 0.1, {}), store, "m")
    made = asyncio.run(store.read_user("u49")).precomputed
    assert made is not None
    assert made.item_ids == ("i147", "i148", "i149")


@pytest.mark.parametrize("content", [b"", b"\n \n", b"\xff\xfe", b"x" * 300])
def test_a_file_without_users_is_a_usage_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "users.txt").write_bytes(content)
    with pytest.raises(UsageError):
        batch.read_users(tmp_path / "users.txt")
    with pytest.raises(UsageError):
        batch.read_users(tmp_path / "none.txt")


def test_user_files_are_read_line_by_line_each_once(tmp_path: Path) -> None:
    (tmp_path / "users.txt").write_text("b\n\n a \r\nb\n")
    assert batch.read_users(tmp_path / "users.txt") == ["b", "a"]


def test_the_command_writes_publishes_and_prints_one_document(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STREAMREC_BUNDLES", str(world / "bundles"))
    monkeypatch.setenv("STREAMREC_HOME", str(tmp_path / "home"))
    (tmp_path / "users.txt").write_text("u0\nnobody\n")
    words = ["batch", "run", "--data", str(world / "data"), "--out", str(tmp_path / "o.parquet")]
    words += ["--users", str(tmp_path / "users.txt"), "--json"]
    plan = CliRunner().invoke(app, [*words, "--dry-run"])
    assert json.loads(plan.stdout)["users"] == 2
    assert not (tmp_path / "o.parquet").exists()
    done = CliRunner().invoke(app, [*words, "--publish", "--k", "5"])
    assert done.exit_code == 0, done.output
    document = json.loads(done.stdout)
    assert (document["rows"], document["published"]) == (10, 2)
    store = SqliteStore(tmp_path / "home")
    made = asyncio.run(store.read_user("nobody")).precomputed
    store.close()
    assert made is not None
    assert len(made.item_ids) == 5
    refused = CliRunner().invoke(app, [*words, "--publish", "--stage", "candidates"])
    assert refused.exit_code == 2
    assert CliRunner().invoke(app, [*words, "--bento", "streamrec:none"]).exit_code == 4
