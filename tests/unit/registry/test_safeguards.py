"""What stands ready when a release goes wrong: named, and there."""

from pathlib import Path

import pytest

from contracts.quality import Escalation
from monitoring.watch.schema import schema_of
from registry.environment import code_root
from registry.safeguards import escalation_check, rollback_check
from registry.versions import ModelVersion

BEFORE = ModelVersion("ranking", 3, "run", "/somewhere", "m-1", 0)


def test_a_rollback_is_to_the_champion_and_a_first_release_names_the_rung_below_it() -> None:
    back = rollback_check(BEFORE, "", 120)
    assert back.verdict == "pass"
    assert "models:/streamrec-ranking/3" in back.detail
    assert "120 items" in back.detail
    first = rollback_check(None, "", 120)
    assert first.verdict == "pass"
    assert "nothing to go back to" in first.detail


def test_with_neither_champion_nor_popularity_nothing_stands_ready() -> None:
    assert rollback_check(None, "", 0).verdict == "inconclusive"
    lost = rollback_check(None, "models:/streamrec-ranking/3, champion, cannot come back: gone", 0)
    assert lost.verdict == "inconclusive"
    assert "cannot come back" in lost.detail
    assert lost.command == "streamrec models check BENTO-OR-MODEL"


def test_an_escalation_has_a_person_an_owner_whom_alerts_name_too_and_a_runbook_that_is_there(tmp_path: Path) -> None:
    role = escalation_check(Escalation())
    assert role.verdict == "inconclusive"
    assert "name a person" in role.detail
    assert escalation_check(Escalation(contact="  ")).verdict == "inconclusive"
    assert (code_root() / Escalation().runbook).is_file()
    assert Escalation().owner in {row.owner for row in schema_of(tmp_path).signals}
    person = escalation_check(Escalation(owner="search", contact="+49 30 1234"))
    assert person.verdict == "pass"
    assert "search, +49 30 1234" in person.detail


@pytest.mark.parametrize(("runbook", "verdict"), [("docs/none.md", "inconclusive"), ("https://wiki/x", "pass")])
def test_a_runbook_that_is_not_there_is_no_runbook(tmp_path: Path, runbook: str, verdict: str) -> None:
    assert escalation_check(Escalation(contact="Ada", runbook=runbook), tmp_path).verdict == verdict
