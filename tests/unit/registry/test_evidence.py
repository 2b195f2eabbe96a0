import pytest

from contracts.errors import ArtifactError
from contracts.evidence import Check
from registry.evidence import document, joint_readiness, merged, parse
from registry.releases.candidate import missing

PASS = Check(name="parity", verdict="pass", detail="equal at 1,000 moments")
FAIL = Check(name="leakage", verdict="fail", detail="an item of tomorrow")


def test_evidence_without_checks_is_inconclusive() -> None:
    assert document("streamrec-ranking", "run", ()).readiness == "inconclusive"


def test_a_later_check_joins_and_one_of_the_same_name_replaces() -> None:
    first = document("streamrec-ranking", "run", [PASS, FAIL])
    later = merged(
        first, [Check(name="leakage", verdict="pass", detail="mended"), Check(name="load", verdict="pass", detail="x")]
    )
    assert [check.name for check in later.checks] == ["parity", "leakage", "load"]
    assert (first.readiness, later.readiness) == ("fail", "pass")


def test_what_is_told_for_people_to_weigh_holds_nothing_up_unless_it_fails() -> None:
    told = Check(name="cold_start", verdict="inconclusive", detail="3 new users", advisory=True)
    assert document("m", "run", [PASS, told]).readiness == "pass"
    assert document("m", "run", [PASS, told.model_copy(update={"verdict": "fail"})]).readiness == "fail"
    assert document("m", "run", [PASS, told.model_copy(update={"advisory": False})]).readiness == "inconclusive"
    documents = dict.fromkeys(("retrieval", "ranking", "fallback"), document("m", "run", [PASS, told]))
    assert missing(documents) == []


def test_models_are_as_ready_as_the_least_of_them() -> None:
    good = document("m", "run", [PASS])
    assert joint_readiness([good, good]) == "pass"
    assert joint_readiness([good, None]) == "inconclusive"
    assert joint_readiness([good, None, document("m", "run", [FAIL])]) == "fail"
    assert joint_readiness([]) == "inconclusive"


def test_a_document_survives_the_way_to_disk() -> None:
    made = document("m", "run", [PASS], {"data_digest": "ab"})
    assert parse(made.model_dump_json(), "here") == made


@pytest.mark.parametrize("text", ["", "[]", '{"schema_version": 2}', '{"model": 1}'])
def test_what_is_not_evidence_is_an_error_that_says_where(text: str) -> None:
    with pytest.raises(ArtifactError, match="models:/x/1"):
        parse(text, "models:/x/1")
