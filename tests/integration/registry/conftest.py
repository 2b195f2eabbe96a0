"""Small sealed bundles and a real MLflow on SQLite, made once for the tests of this folder."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from contracts.settings import Settings
from registry.artifacts import KINDS, Kind, catalogue_hash, seal
from registry.models import Lineage, ModelVersion, Registry
from tests.made_evidence import made_checks

MakeBundles = Callable[..., dict[Kind, Path]]
Train = Callable[..., dict[Kind, ModelVersion]]
DATA_DIGEST = "ab" * 32
FRAME = {"target": {"click": 1.0, "purchase": 3.0}, "horizon": "7 days", "features": ["retrieval"], "budget_ms": 30.0}


@pytest.fixture(scope="session")
def make_bundles(tmp_path_factory: pytest.TempPathFactory) -> MakeBundles:
    """Three bundles that fit one another; `salt` makes their files differ, `fields` override manifest fields."""

    def make(salt: str = "", only: Mapping[Kind, Mapping[str, str]] | None = None, **fields: str) -> dict[Kind, Path]:
        from features.registry import REGISTRY

        root = tmp_path_factory.mktemp("bundles")
        common = {
            "feature_hash": REGISTRY.hash,
            "catalogue_hash": catalogue_hash(["i1", "i2"]),
            "signature": "5" * 64,
            **fields,
        }
        for kind in KINDS:
            folder = root / kind
            folder.mkdir()
            (folder / "weights.json").write_text(json.dumps({"kind": kind, "salt": salt}))
            if kind != "retrieval":
                (folder / "schema.json").write_text(json.dumps({"columns": [{"name": "a"}, {"name": "b"}]}))
            seal(
                folder,
                kind=kind,
                n_items=2,
                trained_until_us=1_300_000_000_000_000,
                clock="log_end",
                log_end_us=1_300_000_000_000_000,
                params={"attributes": ["country"]} if kind == "retrieval" else {},
                **common | dict((only or {}).get(kind, {})),
            )
        return {kind: root / kind for kind in KINDS}

    return make


@pytest.fixture(scope="session")
def lineage() -> Lineage:
    return Lineage(
        data_name="shop",
        data_digest=DATA_DIGEST,
        data_source="/somewhere/shop",
        seeds={"global": 7},
        until_us=1_300_000_000_000_000,
        metrics={"ndcg@10": 0.09, "recall@500": 0.4},
        baselines={"popularity": {"ndcg@10": 0.05}},
        beaten=("popularity",),
        framing=dict.fromkeys(KINDS, FRAME),
    )


@pytest.fixture(scope="session")
def train(make_bundles: MakeBundles, lineage: Lineage) -> Train:
    """Register three bundles as a training would."""

    def run(registry: Registry, salt: str = "", bundles: dict[Kind, Path] | None = None) -> dict[Kind, ModelVersion]:
        with registry.run(f"train {salt}", params={"seed": 7, "two_tower": {"epochs": 3}}) as opened:
            opened.log_metrics({"ndcg@10": 0.09, "auc": float("nan")})
            return opened.register(bundles or make_bundles(salt), {kind: made_checks(kind) for kind in KINDS}, lineage)

    return run


@pytest.fixture(scope="session")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return Settings(home=tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="session")
def registry(settings: Settings) -> Registry:
    """One database for all tests of this folder: its migrations take seconds. Tests compare before and after."""
    return Registry.open(settings)
