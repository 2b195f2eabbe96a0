"""What stands ready when a release goes wrong: named, and there."""

from pathlib import Path

import numpy as np
import pytest

from contracts.quality import Escalation
from monitoring.watch.schema import schema_of
from registry.artifacts import KINDS, Bundle, Kind, open_bundle, seal
from registry.environment import code_root
from registry.safeguards import escalation_check, rollback_check, safeguard_checks
from registry.versions import ModelVersion

BEFORE = ModelVersion("ranking", 3, "run", "/somewhere", "m-1", 0)


class Champions:
    """Of the registry, what a way back is looked up in: version 3 of each model is champion, in a folder of its own."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for kind in KINDS:
            (root / kind).mkdir()
            np.save(root / kind / "popularity.npy", np.arange(120, dtype=np.int32))
            seal(root / kind, kind=kind, feature_hash="", catalogue_hash="", signature="", n_items=120,
                 trained_until_us=0, clock="wall", log_end_us=0)  # fmt: skip

    def versions(self, kind: Kind) -> list[ModelVersion]:
        return [ModelVersion(kind, 3, "run", "", "", 0, aliases=("champion",))]

    def bundle(self, version: ModelVersion) -> Bundle:
        return open_bundle(self.root / version.kind, version.kind)

    def rollbacks(self) -> dict[Kind, str]:
        checks = safeguard_checks(self, Bundle(self.root / "fallback", None), Escalation())  # type: ignore[arg-type]
        return {kind: check.verdict for kind, (check, _) in checks.items()}


def test_a_rollback_is_to_the_champion_and_a_first_release_names_the_rung_below_it() -> None:
    back = rollback_check(BEFORE, "", 120)
    assert back.verdict == "pass"
    assert "models:/streamrec-ranking/3" in back.detail
    assert "120 items" in back.detail
    first = rollback_check(None, "", 120)
    assert first.verdict == "pass"
    assert "nothing to go back to" in first.detail


def test_with_neither_champion_nor_popularity_nothing_stands_ready() -> None:
    nothing = rollback_check(None, "", 0)
    assert nothing.verdict == "inconclusive"
    assert nothing.command == "streamrec models check BENTO-OR-MODEL"


@pytest.mark.parametrize("listed", [0, 120])
def test_a_popularity_list_is_no_way_back_to_a_champion_that_is_lost(listed: int) -> None:
    lost = rollback_check(None, "models:/streamrec-ranking/3, champion, cannot come back: gone", listed)
    assert lost.verdict == "fail"
    assert "cannot come back" in lost.detail
    assert "first release" not in lost.detail


def test_a_champion_whose_files_are_damaged_or_gone_fails_the_check_of_its_kind_alone(tmp_path: Path) -> None:
    champions = Champions(tmp_path)
    assert champions.rollbacks() == dict.fromkeys(KINDS, "pass")
    (tmp_path / "ranking" / "popularity.npy").write_bytes(b"torn")
    (tmp_path / "retrieval" / "manifest.json").unlink()
    assert champions.rollbacks() == {"retrieval": "fail", "ranking": "fail", "fallback": "pass"}


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
