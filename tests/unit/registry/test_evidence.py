from pathlib import Path

import pytest

from contracts.checklist import CHECKLIST, EVERY, wanted
from contracts.errors import ArtifactError
from contracts.evidence import Check, Evidence
from registry.artifacts import KINDS, model_name
from registry.evidence import ONE_RUN, document, item_verdicts, joint_readiness, merged, one_run, parse
from registry.releases.candidate import missing
from tests.made_evidence import made_checks

PASS = Check(name="parity", verdict="pass", detail="equal at 1,000 moments")
FAIL = Check(name="leakage", verdict="fail", detail="an item of tomorrow")
LINEAGE = Check(name="lineage", verdict="pass", detail="known")


def test_evidence_without_checks_is_inconclusive() -> None:
    assert document("streamrec-ranking", "run", ()).readiness == "inconclusive"


def test_a_later_check_joins_and_one_of_the_same_name_replaces() -> None:
    first = document("streamrec-ranking", "run", [PASS, FAIL])
    later = merged(
        first, [Check(name="leakage", verdict="pass", detail="mended"), Check(name="load", verdict="pass", detail="x")]
    )
    assert [check.name for check in later.checks] == ["parity", "leakage", "load"]
    assert (first.readiness, later.readiness) == ("fail", "inconclusive")  # the rest was never checked


def test_a_version_is_ready_when_the_whole_checklist_passes_and_not_without_one_of_it() -> None:
    whole = [*made_checks("ranking"), LINEAGE]
    assert document("streamrec-ranking", "run", whole).readiness == "pass"
    for one in whole:
        rest = [check for check in whole if check.name != one.name]
        assert document("streamrec-ranking", "run", rest).readiness == "inconclusive", one.name


def test_an_item_is_as_good_as_the_worst_that_any_of_the_three_has_on_it() -> None:
    documents: dict[str, Evidence | None] = {
        model_name(kind): document(model_name(kind), "run", [*made_checks(kind), LINEAGE]) for kind in KINDS
    }
    assert item_verdicts(documents) == dict.fromkeys([*(item.name for item in CHECKLIST), ONE_RUN], "pass")
    ranking = documents["streamrec-ranking"]
    assert ranking is not None
    leak, slow = (
        Check(name=name, verdict=verdict, detail="x")
        for name, verdict in (("leakage_ids", "fail"), ("latency", "inconclusive"))
    )
    documents["streamrec-ranking"] = merged(ranking, [leak, slow])
    documents["streamrec-retrieval"] = document("streamrec-retrieval", "run", [LINEAGE])
    found = item_verdicts(documents)
    assert (found["leakage"], found["latency"], found["slices"], found["lineage"]) == (
        "fail",
        "missing",
        "pass",
        "pass",
    )
    assert set(item_verdicts(dict.fromkeys(documents)).values()) == {"missing"}


def test_the_checklist_names_models_and_says_how_each_item_is_had() -> None:
    assert {model for item in CHECKLIST for model in item.checks} == {model_name(kind) for kind in KINDS}
    assert len({item.name for item in CHECKLIST}) == len(CHECKLIST)
    assert all(item.command.startswith("streamrec ") and item.what for item in CHECKLIST)


def test_the_page_on_the_registry_lists_the_checks_of_each_model() -> None:
    page = (Path(__file__).parents[3] / "docs" / "registry.md").read_text()
    assert {name for model in EVERY for name in wanted(model) if f"\n| `{name}` | " not in page} == set()


def test_what_is_told_for_people_to_weigh_holds_nothing_up_unless_it_fails() -> None:
    told = Check(name="cold_start", verdict="inconclusive", detail="3 new users", advisory=True)
    assert document("m", "run", [PASS, told]).readiness == "pass"
    assert document("m", "run", [PASS, told.model_copy(update={"verdict": "fail"})]).readiness == "fail"
    assert document("m", "run", [PASS, told.model_copy(update={"advisory": False})]).readiness == "inconclusive"
    whole = {kind: document(model_name(kind), "run", [*made_checks(kind), LINEAGE, told]) for kind in KINDS}
    assert missing(whole) == []


def test_models_are_as_ready_as_the_least_of_them() -> None:
    good = document("m", "run", [PASS])
    assert joint_readiness([good, good]) == "pass"
    assert joint_readiness([good, None]) == "inconclusive"
    assert joint_readiness([good, None, document("m", "run", [FAIL])]) == "fail"
    assert joint_readiness([]) == "inconclusive"


def test_models_of_several_runs_are_told_by_run_and_are_not_ready() -> None:
    whole = {kind: document(model_name(kind), "1111111122", [*made_checks(kind), LINEAGE]) for kind in KINDS}
    assert one_run(whole.values()).verdict == joint_readiness(whole.values()) == "pass"
    assert missing(whole) == []
    whole["ranking"] = whole["ranking"].model_copy(update={"run_id": "3333333344"})
    mixed = one_run(whole.values())
    assert mixed.verdict == joint_readiness(whole.values()) == "inconclusive"
    assert "run 11111111: streamrec-retrieval, streamrec-fallback; run 33333333: streamrec-ranking" in mixed.detail
    assert item_verdicts({model_name(kind): one for kind, one in whole.items()})[ONE_RUN] == "inconclusive"
    (told,) = missing(whole, "streamrec:a")
    assert (told.verdict, told.command) == ("inconclusive", "streamrec build")
    assert one_run([None, whole["ranking"]]).verdict == "pass"  # that the other has none is told apart
    assert one_run([None]).verdict == "inconclusive"


def test_a_document_survives_the_way_to_disk() -> None:
    made = document("m", "run", [PASS], {"data_digest": "ab"})
    assert parse(made.model_dump_json(), "here") == made


@pytest.mark.parametrize("text", ["", "[]", '{"schema_version": 2}', '{"model": 1}'])
def test_what_is_not_evidence_is_an_error_that_says_where(text: str) -> None:
    with pytest.raises(ArtifactError, match="models:/x/1"):
        parse(text, "models:/x/1")
