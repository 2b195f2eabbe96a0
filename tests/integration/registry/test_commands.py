"""`models`, `build` and `containerize` as a script calls them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from cli.main import app
from contracts.checklist import wanted
from contracts.evidence import Check
from contracts.settings import Settings
from registry.models import Lineage, Registry
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
    assert {check["name"] for check in shown["evidence"]["checks"]} == set(wanted("streamrec-ranking"))

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


def test_check_adds_to_a_version_of_an_older_day_what_needs_no_training(
    registry: Registry,
    make_bundles: MakeBundles,
    lineage: Lineage,
    call: Call,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "quality.toml").write_text("[escalation]\ncontact = 'Ada, +49 30 1234'\n")
    monkeypatch.setenv("STREAMREC_QUALITY", str(tmp_path / "quality.toml"))
    with registry.run("older") as run:
        versions = run.register(make_bundles("older"), [Check(name="parity", verdict="pass", detail="equal")], lineage)
    said = document(call("models", "check", versions["ranking"].uri, "--json"))
    assert set(said["checks"]) == {version.uri for version in versions.values()}
    for version in versions.values():
        evidence = registry.evidence(version)
        assert evidence is not None
        checks = {check.name: check for check in evidence.checks}
        assert list(checks) == ["lineage", "parity", "artifacts", "latency", "rollback", "escalation"]
        assert checks["artifacts"].verdict == "pass"
        assert checks["escalation"].verdict == "pass"
        assert checks["latency"].verdict == "inconclusive"  # these files are none that could be asked
        assert "models:/" in checks["rollback"].detail  # back to the first version, which is champion
    assert "ranker was not measured" in call("models", "check", versions["ranking"].uri).stdout
    monkeypatch.delenv("STREAMREC_QUALITY")
    said = document(call("models", "check", versions["ranking"].uri, "--json"))
    nobody = [check for check in said["checks"][versions["ranking"].uri] if check["name"] == "escalation"]
    assert nobody[0]["verdict"] == "inconclusive"


def test_card_prints_markdown_or_writes_a_page(registry: Registry, train: Train, call: Call, tmp_path: Path) -> None:
    version = train(registry, "card")["ranking"]
    text = call("models", "card", version.uri).stdout
    assert text.startswith(f"# streamrec-ranking {version.number}\n")
    assert "| parity | export | pass |" in text
    page = tmp_path / "card.html"
    said = document(call("models", "card", version.uri, "--html", "--out", str(page), "--json"))
    assert (said["uri"], said["format"], said["file"]) == (version.uri, "html", str(page))
    assert page.read_text().startswith("<!DOCTYPE html>")
    call("models", "check", version.uri)  # changes the evidence, and so the card beside it
    stored = registry.bundle(version).folder.parent
    assert "ranker was not measured" in (stored / "card.md").read_text()
    assert "ranker was not measured" in (stored / "card.html").read_text()
    assert document(call("models", "card", version.uri, "--json"))["text"].startswith("# streamrec-ranking")


def test_build_writes_each_item_of_the_checklist(
    registry: Registry, train: Train, make_bundles: MakeBundles, lineage: Lineage, call: Call
) -> None:
    train(registry, "checklist")
    assert set(document(call("build", "--dry-run", "--json"))["checklist"].values()) == {"pass"}
    with registry.run("bare") as run:
        run.register(make_bundles("bare"), [], lineage)
    said = document(call("build", "--dry-run", "--json"))
    assert (said["checklist"]["lineage"], said["checklist"]["latency"], said["readiness"]) == (
        "pass",
        "missing",
        "inconclusive",
    )
    train(registry, "whole again")


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
