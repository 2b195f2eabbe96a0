"""The dashboard in the repository is the one that the code makes, of metrics that are there."""

import re

from bentos.gateway.metrics import GatewayMetrics
from bentos.recommender.metrics import Metrics
from monitoring.watch.dashboard import FILE, dashboard, text
from monitoring.watch.metrics import WatchMetrics

AGAIN = "run `python -m monitoring.watch.dashboard`"


def known() -> set[str]:
    return {f.name for m in (Metrics(), GatewayMetrics(), WatchMetrics()) for f in m.registry.collect()}


def test_the_file_is_what_the_code_makes() -> None:
    assert FILE.read_text() == text(), AGAIN


def test_every_metric_of_it_exists() -> None:
    expressions = [t["expr"] for panel in dashboard()["panels"] for t in panel.get("targets", ())]
    used = {name for e in expressions for name in re.findall(r"streamrec_\w+", e)}
    bare = {re.sub(r"_(total|bucket|sum|count)$", "", name) for name in used}
    assert len(used) > 20
    assert bare - known() == set()


def test_no_two_panels_share_a_place() -> None:
    places = [tuple(panel["gridPos"].values()) for panel in dashboard()["panels"]]
    assert len(set(places)) == len(places)
