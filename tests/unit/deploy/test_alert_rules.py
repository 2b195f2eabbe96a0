"""The alert rules: of metrics that are there, with an owner and a runbook of their own; and promtool's own word, which is
skipped on a developer's machine without it and fails where `CI` is set."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from bentos.gateway.metrics import GatewayMetrics
from bentos.recommender.metrics import Metrics
from monitoring.watch.metrics import WatchMetrics
from monitoring.watch.schema import read_schema, schema_path

ROOT = Path(__file__).resolve().parents[3]
FOLDER = ROOT / "deploy" / "prometheus"
RULES = [
    rule
    for group in yaml.safe_load((FOLDER / "streamrec.rules.yml").read_text())["groups"]
    for rule in group["rules"]
]
TRIED = sorted(path.name for path in FOLDER.glob("*.test.yml"))
OWNERS = {row.owner for row in read_schema(schema_path(Path("no-home"))).signals}


def promtool(*words: str) -> subprocess.CompletedProcess[str]:
    if shutil.which("promtool") is None:
        if os.environ.get("CI"):
            pytest.fail("promtool is not on the PATH, and CI is set: apt-get install prometheus")
        pytest.skip("promtool is not on the PATH: the alert rules are NOT tried")
    return subprocess.run(["promtool", *words], cwd=FOLDER, capture_output=True, text=True, timeout=300, check=False)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_a_rule_reads_metrics_that_are_there(rule):
    known = {"up"}
    for metrics in (Metrics(), GatewayMetrics(), WatchMetrics()):
        known |= {family.name for family in metrics.registry.collect()}
    names = re.findall(r"streamrec_\w+|\bup\b", rule["expr"])
    used = {re.sub(r"_(total|bucket|count)$", "", name) for name in names}
    assert used
    assert used <= known
    assert rule["labels"]["severity"] in ("page", "ticket")


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_a_rule_names_an_owner_and_a_runbook_of_its_own(rule):
    runbook = ROOT / rule["annotations"]["runbook"]
    assert runbook.is_file()
    assert runbook.name != "README.md"
    kept = re.search(r"by \(([^)]*\bowner\b[^)]*)\)", rule["expr"])  # the label of the series it is made of
    assert rule["labels"].get("owner") in OWNERS or kept


def test_promtool_that_is_missing_fails_where_ci_is_set(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda _: None)
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="apt-get install prometheus"):
        promtool("--version")
    monkeypatch.delenv("CI")
    with pytest.raises(pytest.skip.Exception):
        promtool("--version")


def test_every_rule_is_tried_on_series_that_it_fires_on():
    tried = {
        check["alertname"]
        for file in TRIED
        for test in yaml.safe_load((FOLDER / file).read_text())["tests"]
        for check in test["alert_rule_test"]
        if check.get("exp_alerts")
    }
    assert {rule["alert"] for rule in RULES} - tried == set()


@pytest.mark.parametrize("words", [["check", "rules", "streamrec.rules.yml"], ["test", "rules", *TRIED]])
def test_promtool_has_nothing_to_say(words):
    done = promtool(*words)
    assert done.returncode == 0, done.stdout + done.stderr
