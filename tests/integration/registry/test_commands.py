"""`models`, `build` and `containerize` as a script calls them."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from cli.main import app
from contracts.settings import Settings
from registry.models import Registry
from tests.integration.registry.conftest import MakeBundles, Train

Call = Callable[..., Result]


@pytest.fixture
def call(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Call:
    monkeypatch.setenv("STREAMREC_HOME", str(settings.home))
    return lambda *words: CliRunner().invoke(app, list(words))


def document(result: Result) -> dict[str, Any]:
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def test_models_list_show_lineage_and_verify_print_one_document(registry: Registry, train: Train, call: Call) -> None:
    versions = train(registry, "commands")
    listed = document(call("models", "list", "--json"))["models"]
    assert {entry["uri"] for entry in listed} >= {version.uri for version in versions.values()}

    shown = document(call("models", "show", "streamrec-ranking@challenger", "--json"))
    assert shown["uri"] == versions["ranking"].uri
    assert shown["metrics"]["ndcg@10"] == 0.09
    assert shown["framing"]["budget_ms"] == 30
    assert [check["name"] for check in shown["evidence"]["checks"]] == ["lineage", "parity"]

    tree = document(call("models", "lineage", versions["fallback"].uri, "--json"))
    assert tree["kind"] == "model"
    assert tree["children"][0]["name"] == versions["fallback"].run_id

    verified = document(call("models", "verify", versions["retrieval"].uri, "--json"))
    assert verified == {"verdict": "pass", "findings": {versions["retrieval"].uri: []}}


def test_people_get_tables_and_a_tree(registry: Registry, train: Train, call: Call) -> None:
    versions = train(registry, "people")
    assert f"streamrec-ranking/{versions['ranking'].number}" in call("models", "list").stdout
    shown = call("models", "show", versions["ranking"].uri).stdout
    assert "parity" in shown
    assert "click 1, purchase 3" in shown
    tree = call("models", "lineage", versions["ranking"].uri).stdout
    assert "rows_kept no" in tree
    assert "framing click 1, purchase 3; 7 days; 30 ms" in tree


def test_verify_ends_with_1_when_something_is_damaged(registry: Registry, train: Train, call: Call) -> None:
    version = train(registry, "damaged file")["ranking"]
    (registry.bundle(version).folder / "weights.json").write_text("{}")
    result = call("models", "verify", version.uri, "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["findings"][version.uri] == ["weights.json does not match its checksum"]
    train(registry, "whole")


def test_build_dry_run_prints_the_plan_and_writes_nothing(
    registry: Registry, settings: Settings, train: Train, call: Call
) -> None:
    versions = train(registry, "dry run")
    before = sorted(settings.home.rglob("*"))
    said = document(call("build", "--dry-run", "--json"))
    assert said["models"] == {kind: version.uri for kind, version in versions.items()}
    assert said["tag"] is None
    assert {"git_commit", "feature_hash", "readiness"} <= said.keys()
    assert [path for path in sorted(settings.home.rglob("*")) if path.suffix != ".lock"] == [
        path for path in before if path.suffix != ".lock"
    ]


def test_build_ends_with_3_when_the_pins_do_not_fit(
    registry: Registry, train: Train, make_bundles: MakeBundles, call: Call
) -> None:
    odd = train(registry, "another row", make_bundles("another row", signature="6" * 64))
    usual = train(registry, "the usual row")
    result = call("build", "--fallback", odd["fallback"].uri, "--dry-run")
    assert result.exit_code == 3
    assert odd["fallback"].uri in result.stderr
    assert usual["ranking"].uri in result.stderr


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["models", "show", "nobody@champion"], 2),
        (["models", "show", "streamrec-ranking@nobody"], 4),
        (["models", "lineage", "streamrec:nothing"], 4),
        (["build", "--ranking", "streamrec-fallback/1", "--dry-run"], 2),
        (["build", "--device", "tpu"], 2),
        (["containerize", "streamrec:nothing"], 4),
    ],
)
def test_errors_end_with_their_exit_code_and_no_traceback(call: Call, words: list[str], code: int) -> None:
    result = call(*words)
    assert result.exit_code == code, result.output
    assert "Traceback" not in result.output
