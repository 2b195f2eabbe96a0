"""`monitor skew` over the logs of answers: what the funnel of a registered model really said, and planted troubles."""

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray
from typer.testing import CliRunner

from bentos.recommender.assemble import load_models
from bentos.recommender.funnel import Funnel
from bentos.recommender.rules import default_rules
from bentos.recommender.side_effects import context_record, exposure
from bentos.recommender.slates import ROW_SIGNATURE
from bentos.recommender.types import Query
from bentos.telemetry.contexts import ContextLog
from bentos.telemetry.exposures import ExposureLog
from bentos.telemetry.roll import roll
from cli.main import app
from contracts.exposures import ContextRecord, Exposure, FeatureUsed, ShownRows, States, Versions
from contracts.settings import Settings
from contracts.user_keys import UserKeys, rotate
from features.frame import DENSE
from features.offline.states import user_states_as_of
from features.ranking import row_schema
from features.registry import REGISTRY
from monitoring.frames.reference import Reference, load_reference
from monitoring.skew.report import SkewReport
from monitoring.skew.run import skew
from registry.lineage import SNAPSHOTS
from registry.models import Registry
from training.pipeline import TrainResult

START_US = 1_770_000_000_000_000
NOW_US = START_US + 3_600_000_000
WIDTH = len(row_schema().columns)
VERSIONS = Versions("streamrec:b", "v1-aaaaaaaa", "v1-aaaaaaaa", "v1-aaaaaaaa", "rules", features=REGISTRY.hash)

Pair = tuple[Exposure, ContextRecord]


@pytest.fixture(scope="module")
def reference(whole: tuple[TrainResult, Settings]) -> Reference:
    return load_reference(whole[1].home, whole[0].models["ranking"])


@pytest.fixture
def home(whole: tuple[TrainResult, Settings]) -> Iterator[Path]:
    """The trained home without logs, and without those of this test after it."""
    home = whole[1].home
    yield home
    shutil.rmtree(home / "log", ignore_errors=True)


@pytest.fixture
def judge(home: Path) -> Callable[..., SkewReport]:
    def call(pairs: Sequence[Pair], *, since_us: int | None = None, rows: int = 200, **limits: Any) -> SkewReport:
        exposures, contexts = ExposureLog(home), ContextLog(home)
        for shown, record in pairs:
            exposures.append(shown)
            contexts.append(record)
        exposures.close()
        contexts.close()
        # So few users leave a share of nothing open by more than the 0.05 that is the default.
        settings = Settings(home=home, **{"skew_missing": 0.2, **limits})
        report = skew(settings, since_us=since_us, until_us=None, now_us=NOW_US, rows=rows)
        json.dumps(report.document(), allow_nan=False)
        assert all(signal.name.startswith("skew.") for signal in report.signals())
        return report

    return call


# --- what the funnel really answers ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def answers(whole: tuple[TrainResult, Settings]) -> list[Pair]:
    """One answer for each of the users, at the end of the log, with the features as of then."""
    result, settings = whole
    registry = Registry.open(settings)
    folders = {kind: registry.bundle(registry.resolve(uri)).folder for kind, uri in result.models.items()}
    models = load_models(folders)
    funnel = Funnel(models, default_rules())
    states = user_states_as_of(settings.home / SNAPSHOTS / result.snapshot, None, models.now_us())
    pairs = []
    for number, (user, state) in enumerate(states.items()):
        query = Query(f"r{number}", user, 20, models.now_us(), np.inf, {"country": "DE", "device": "ios"})
        slate = funnel.run(query, state)
        at = START_US + number * 1_000_000
        shown = msgspec.structs.replace(exposure(query, slate, VERSIONS), timestamp_us=at)
        record = context_record(query, slate, [], with_rows=True)
        record = msgspec.structs.replace(record, timestamp_us=at, versions=VERSIONS, states=States())
        pairs.append((shown, record))
    return pairs


def test_every_value_that_the_funnel_logs_is_that_of_the_offline_join(judge: Any, answers: list[Pair]) -> None:
    report = judge(answers)
    assert report.model == "streamrec-ranking/1"
    assert report.n == 20 * len(answers)
    assert report.rows is not None
    assert report.rows.verdict == "ok"
    assert report.rows.requests == len(answers)
    features = {one.feature: one for one in report.rows.features}
    assert {"user_tenure_days", "user_last_10_interactions", "item_pop_7d", "item_ctr_7d"} <= set(features)
    for one in report.rows.features:
        if one.feature != "label":
            assert (one.verdict, one.different) == ("ok", 0), one
    assert features["label"].why == "no event came in this window"


def test_a_planted_difference_is_a_breach_that_names_feature_rows_and_kind(judge: Any, answers: list[Pair]) -> None:
    def broken(record: ContextRecord) -> ContextRecord:
        features = [
            FeatureUsed(f.name, 7.5, f.age_s, "store") if f.name == "user_positives_30d" else f for f in record.features
        ]
        return msgspec.structs.replace(record, features=features)

    report = judge([(shown, broken(record)) for shown, record in answers])
    assert report.verdict == "breach"
    assert "rows of user_positives_30d" in report.why
    (signal,) = [s for s in report.signals() if s.name == "skew.rows.user_positives_30d"]
    assert (signal.verdict, signal.details["kind"], signal.model) == ("breach", "code", "streamrec-ranking/1")
    assert signal.details["rows"][0]["logged"] == 7.5


def test_users_whom_the_log_hides_by_key_are_joined_by_their_names(
    judge: Any, answers: list[Pair], tmp_path: Path
) -> None:
    rotate(tmp_path / "keys.json", 0)
    keys = UserKeys(tmp_path / "keys.json")
    hidden = [
        tuple(msgspec.structs.replace(record, user_id=keys.hide(record.user_id)) for record in pair) for pair in answers
    ]
    stranger = tuple(msgspec.structs.replace(r, user_id=keys.hide("nobody"), request_id="x") for r in answers[0])
    report = judge([*hidden, stranger], user_keys=tmp_path / "keys.json")
    assert report.rows is not None
    assert (report.rows.verdict, report.rows.requests) == ("ok", len(answers))
    assert all(one.different == 0 for one in report.rows.features)
    assert any("1 answers are of users hidden by key" in problem for problem in report.problems)


def test_without_the_data_set_the_rows_are_inconclusive_and_the_statistics_go_on(
    judge: Any, answers: list[Pair], whole: tuple[TrainResult, Settings]
) -> None:
    snapshot = whole[1].home / SNAPSHOTS / whole[0].snapshot
    away = snapshot.rename(snapshot.with_name("away"))
    try:
        report = judge(answers)
    finally:
        away.rename(snapshot)
    assert report.rows is not None
    assert report.rows.verdict == "inconclusive"
    assert "no data set" in report.rows.why
    assert {f.feature for f in report.features} >= set(DENSE)


# --- the reference's own rows, served again --------------------------------------------------------------------------


def again(reference: Reference, change: Callable[[str, NDArray[Any]], NDArray[Any]] | None = None) -> list[Pair]:
    """Answers that show what the reference's slates showed, with a column changed."""
    shown = reference.shown.sort_by([("user_id", "ascending"), ("position", "ascending")])
    matrix = np.zeros((shown.num_rows, WIDTH), np.float32)
    for at, name in enumerate(DENSE):
        values = shown[name].to_numpy().astype(np.float64)
        matrix[:, at] = change(name, values) if change else values
    matrix[:, WIDTH - 3] = [int((word or "#0")[1:]) for word in shown["creator"].to_pylist()]
    pairs = []
    users = np.array(shown["user_id"].to_pylist())
    for number, user in enumerate(np.unique(users).tolist()):
        at = np.flatnonzero(users == user)
        rows = shown.take(pa.array(at))
        ids = rows["item_id"].to_pylist()
        context = {name: rows[name][0].as_py() or "" for name in ("country", "device")}
        kept = ShownRows(
            ids, rows["category"].to_pylist(), rows["score"].to_pylist(), ROW_SIGNATURE, matrix[at].tobytes()
        )
        stamp = START_US + number
        pairs.append(
            (
                Exposure(
                    f"r{number}", stamp, reference.trained_until_us, user, user, "champion", "champion", 1.0, False,
                    None, "ok", "full", ids, VERSIONS,
                ),
                ContextRecord(
                    f"r{number}", stamp, reference.trained_until_us, user, 20, context, [], [], {}, ids, [], "", "dcn",
                    {}, shown=kept, versions=VERSIONS, states=States(),
                ),
            )
        )  # fmt: skip
    return pairs


def verdict_of(report: SkewReport, name: str) -> tuple[str, str]:
    (found,) = [f for f in report.features if f.feature == name]
    return found.verdict, found.why


def test_what_training_saw_served_again_is_no_skew(judge: Any, reference: Reference) -> None:
    report = judge(again(reference), rows=0)
    assert (report.verdict, report.why) == ("ok", "")
    assert all(s.verdict != "breach" for s in report.signals())


@pytest.mark.parametrize(
    ("change", "measure"),
    [
        (lambda v: v + 2 * np.nanstd(v), "shift +2"),
        (lambda v: np.nanmean(v) + (v - np.nanmean(v)) / 10, "ratio +0.1"),
        (lambda v: np.where(np.arange(len(v)) % 2, v, np.nan), "missing +0.5"),
        (lambda v: np.full(len(v), np.nan), "missing +1"),
        (lambda v: np.full(len(v), 3.0), "ratio +"),
    ],
    ids=["shifted", "narrow", "half missing", "all NaN", "constant"],
)
def test_a_feature_that_is_served_otherwise_is_named(
    judge: Any, reference: Reference, change: Callable[[NDArray[Any]], NDArray[Any]], measure: str
) -> None:
    name = "log_item_pop_7d"
    report = judge(again(reference, lambda n, values: change(values) if n == name else values), rows=0)
    assert (report.verdict, report.why) == ("breach", f"statistics of {name}")
    assert measure in verdict_of(report, name)[1]


def test_an_empty_window_is_inconclusive(judge: Any, reference: Reference) -> None:
    report = judge([])
    assert (report.verdict, report.why) == ("inconclusive", "nothing was answered in this window")
    later = judge(again(reference), since_us=NOW_US)
    assert later.verdict == "inconclusive"
    assert [s.verdict for s in later.signals()] == ["inconclusive"]


def test_one_answer_is_too_few(judge: Any, reference: Reference) -> None:
    report = judge(again(reference)[:1], rows=0)
    assert report.verdict == "inconclusive"
    assert "1 users are too few" in report.why


def test_answers_of_other_feature_definitions_are_not_judged(judge: Any, reference: Reference) -> None:
    other = msgspec.structs.replace(VERSIONS, features="0" * 64)
    pairs = [(msgspec.structs.replace(shown, versions=other), record) for shown, record in again(reference)]
    report = judge(pairs, rows=0)
    assert report.verdict == "inconclusive"
    assert "of other feature definitions" in report.why


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"timestamp_us": NOW_US + 7_200_000_000}, "from the future"),
        ({"clock_us": 1_000_000}, "before the training ended"),
    ],
)
def test_a_clock_that_is_wrong_is_its_own_verdict(
    judge: Any, reference: Reference, changes: dict[str, int], why: str
) -> None:
    pairs = [
        (msgspec.structs.replace(shown, **changes), msgspec.structs.replace(record, **changes))
        for shown, record in again(reference)
    ]
    report = judge(pairs, rows=0)
    assert report.verdict == "inconclusive"
    assert why in report.why


def test_a_few_rows_of_a_wrong_clock_are_left_out_and_said(judge: Any, reference: Reference) -> None:
    pairs = again(reference)
    pairs[0] = (msgspec.structs.replace(pairs[0][0], clock_us=1_000_000), pairs[0][1])
    report = judge(pairs, rows=0, skew_mean=0.6)  # one user less leaves a shift of 0.5 open
    assert report.verdict == "ok"
    assert any("a clock is wrong" in problem for problem in report.problems)


def test_a_corrupt_partition_is_named_and_the_rest_is_judged(judge: Any, home: Path, reference: Reference) -> None:
    assert judge(again(reference), rows=0).verdict == "ok"
    roll(home)
    good = next((home / "log" / "exposures").glob("date=*/*.parquet"))
    good.with_name("torn.parquet").write_bytes(good.read_bytes()[:100])
    report = judge([], rows=0)
    assert report.verdict == "ok"
    assert any("torn.parquet cannot be read" in problem for problem in report.problems)


@pytest.mark.parametrize(
    ("ranking", "why"), [("v9-aaaaaaaa", "there is no"), ("unpinned", "name no registered ranker")]
)
def test_a_ranker_without_a_reference_is_inconclusive(judge: Any, reference: Reference, ranking: str, why: str) -> None:
    other = msgspec.structs.replace(VERSIONS, ranking=ranking)
    report = judge([(msgspec.structs.replace(s, versions=other), record) for s, record in again(reference)], rows=0)
    assert report.verdict == "inconclusive"
    assert why in report.why


def test_answers_of_another_ranker_are_left_out_and_said(judge: Any, reference: Reference) -> None:
    pairs = again(reference)
    other = msgspec.structs.replace(VERSIONS, ranking="v2-bbbbbbbb")
    more = [
        (msgspec.structs.replace(shown, versions=other, request_id=f"x{shown.request_id}"), record)
        for shown, record in pairs[:5]
    ]
    report = judge([*pairs, *more], rows=0)
    assert report.verdict == "ok"
    assert any("5 of" in problem and "other rankers" in problem for problem in report.problems)


# --- the command -----------------------------------------------------------------------------------------------------


def test_the_command_prints_one_document_and_refuses_only_when_it_is_asked_to(
    judge: Any, home: Path, reference: Reference
) -> None:
    judge(again(reference, lambda name, v: v + 9 if name == "item_ctr_7d" else v), rows=0)
    run = partial(CliRunner().invoke, app, env={"STREAMREC_HOME": str(home)})
    found = run(["monitor", "skew", "--rows", "0", "--json"])
    assert found.exit_code == 0, found.output
    document = json.loads(found.stdout)
    assert document["verdict"] == "breach"
    assert document["features"]["item_ctr_7d"]["measures"]["shift"]["limit"] == 0.5
    checked = run(["monitor", "skew", "--rows", "0", "--check"])
    assert checked.exit_code == 3
    assert "item_ctr_7d" in checked.stdout
    nothing = run(["monitor", "skew", "--until", "2020-01-01", "--check", "--json"])
    assert (nothing.exit_code, json.loads(nothing.stdout)["verdict"]) == (0, "inconclusive")
    assert run(["monitor", "skew", "--since", "2026-02-02", "--until", "2026-02-01"]).exit_code == 2
    assert run(["monitor", "skew", "--model", "streamrec-ranking/77"]).exit_code == 4
