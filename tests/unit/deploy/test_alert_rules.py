"""The alert rules: of metrics that are there, with runbooks that are there; and promtool's own word where it is."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from bentos.gateway.metrics import GatewayMetrics
from bentos.recommender.metrics import Metrics
from monitoring.watch.metrics import WatchMetrics

ROOT = Path(__file__).resolve().parents[3]
FOLDER = ROOT / "deploy" / "prometheus"
RULES = [
    rule
    for group in yaml.safe_load((FOLDER / "streamrec.rules.yml").read_text())["groups"]
    for rule in group["rules"]
]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_a_rule_reads_metrics_that_are_there_and_names_a_runbook_that_is_there(rule):
    known = {"up"}
    for metrics in (Metrics(), GatewayMetrics(), WatchMetrics()):
        known |= {family.name for family in metrics.registry.collect()}
    names = re.findall(r"streamrec_\w+|\bup\b", rule["expr"])
    used = {re.sub(r"_(total|bucket|count)$", "", name) for name in names}
    assert used
    assert used <= known
    assert (ROOT / rule["annotations"]["runbook"]).is_file()
    assert rule["labels"]["severity"] in ("page", "ticket")


def test_every_rule_is_tried_on_series_that_it_fires_on():
    tried = {
        check["alertname"]
        for test in yaml.safe_load((FOLDER / "streamrec.test.yml").read_text())["tests"]
        for check in test["alert_rule_test"]
        if check.get("exp_alerts")
    }
    assert {rule["alert"] for rule in RULES} - tried == set()


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool (Debian's prometheus) is not installed")
@pytest.mark.parametrize("words", [["check", "rules", "streamrec.rules.yml"], ["test", "rules", "streamrec.test.yml"]])
def test_promtool_has_nothing_to_say(words):
    done = subprocess.run(["promtool", *words], cwd=FOLDER, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
