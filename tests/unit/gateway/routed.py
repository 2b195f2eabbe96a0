"""Routing tables for the tests of the gateway's part of them."""

from typing import Any

from contracts.routing import ReleaseRoute, RoutingTable, Target, Upstream
from contracts.rules import RulesDocument

OLD, NEW = Target(bento="streamrec:old"), Target(bento="streamrec:new")
STRICT, LOOSE = RulesDocument(version="strict"), RulesDocument(version="loose", category_cap=9)
RULES = {d.digest: d for d in (STRICT, LOOSE)}
BENTOS = {t.bento: Upstream(urls=(f"unix:/run/{t.bento[-3:]}.sock",)) for t in (OLD, NEW)}


def release(**more: Any) -> ReleaseRoute:
    return ReleaseRoute.model_validate({"id": "r-1", "step": "canary", "candidate": NEW, **more})


def table(**more: Any) -> RoutingTable:
    values = {"epoch": 1, "version": 1, "written_at": "2026-01-02T03:04:05.000+00:00", "champion": OLD}
    return RoutingTable.model_validate({**values, "bentos": BENTOS, "rules": RULES, **more})
