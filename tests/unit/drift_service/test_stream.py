"""Online detectors on the stream of answers: when a change is found, since when it was there, and that looks agree."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from benchmarks.watch_log import Drift, World, write_log, write_reference
from bentos.telemetry.event_store import EventStore
from bentos.telemetry.exposures import read_exposures
from contracts.dataset import Positive
from contracts.errors import NotFound
from contracts.events import Event
from contracts.settings import Settings
from features.labels import LabelRule
from monitoring.alerts.grouping import SUBJECTS
from monitoring.drift.service import labelled
from monitoring.drift.stream.listen import Kind, Stream, listen
from monitoring.drift.stream.run import DAY_US, HOUR_US, SETTLED_US, stream_run
from monitoring.frames.reference import Reference, read_reference
from monitoring.signals import Signal
from monitoring.watch.check import signals_of
from monitoring.watch.checks.base import Asked
from monitoring.watch.schema import read_schema, schema_path

NOW_US = 1_760_000_000_000_000
WORLD = World.draw(0, items=300, users=4_000)
ERT = 100_000.0


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Reference:
    folder = write_reference(tmp_path_factory.mktemp("trained") / "reference", WORLD, rows=30_000)
    return read_reference(folder, "run", "models:/streamrec-ranking/1")


def stream(kind: Kind, values: np.ndarray, *, seed: int = 1) -> Stream:
    random = np.random.default_rng(seed)
    before = random.lognormal(0, 1, 3_000) if kind == "cusum" else (random.random(3_000) < 0.05).astype(float)
    at = np.arange(len(values))
    return Stream("x", kind, before, values, at * 1_000, 2 * at)


def drawn(kind: Kind, rows: int, drifted: int, *, seed: int = 2) -> np.ndarray:
    """`rows` as in the reference, then `drifted` that are not."""
    random = np.random.default_rng(seed)
    if kind == "cusum":
        return random.lognormal(np.repeat([0.0, 0.6], [rows, drifted]), 1)
    return (random.random(rows + drifted) < np.repeat([0.05, 0.2], [rows, drifted])).astype(float)


@pytest.mark.parametrize("kind", ["cusum", "estimated_rate"])
def test_a_change_is_dated_and_its_delay_counted_in_requests(kind: Kind):
    values = drawn(kind, 2_000, 600)
    values[5] = np.nan  # says nothing
    heard = listen(stream(kind, values), ert=ERT)
    assert heard.alarm_us is not None
    assert heard.since_us is not None
    assert abs(heard.since_us - 2_000_000) < 60_000
    assert 2_000_000 < heard.alarm_us < 2_400_000
    assert heard.requests == 2 * (heard.alarm_us - heard.since_us) // 1_000
    assert listen(stream(kind, values), ert=ERT) == heard  # whoever looks
    later = listen(stream(kind, drawn(kind, 2_000, 3_000)), ert=ERT)
    assert later.alarm_us == pytest.approx(heard.alarm_us, abs=100_000)  # further alarms of one change are no others


@pytest.mark.parametrize("kind", ["cusum", "estimated_rate"])
def test_without_a_change_there_is_no_alarm_and_one_that_is_over_ends(kind: Kind):
    assert listen(stream(kind, drawn(kind, 20_000, 0)), ert=ERT).alarm_us is None
    over = np.concatenate([drawn(kind, 1_000, 400), drawn(kind, 3_000, 0, seed=3)])
    assert listen(stream(kind, over), ert=ERT).alarm_us is None


def test_a_change_before_the_first_row_has_no_moment():
    heard = listen(stream("cusum", drawn("cusum", 0, 500)), ert=ERT)
    assert (heard.alarm_us is not None, heard.since_us) == (True, None)


def test_a_rate_of_nothing_in_the_reference_is_found_when_it_begins_and_not_for_one_hit():
    def never(values: np.ndarray) -> Stream:
        at = np.arange(len(values))
        return Stream("missing", "estimated_rate", np.zeros(1_000), values, at, at)

    quiet, begun = np.zeros(2_000), np.zeros(2_000)
    quiet[1_500] = 1
    begun[1_500:] = np.random.default_rng(1).random(500) < 0.1
    assert listen(never(quiet), ert=ERT).alarm_us is None
    assert listen(never(begun), ert=ERT).alarm_us is not None


def test_what_cannot_be_judged_says_why():
    at = np.arange(3)
    assert "fewer than 30" in listen(Stream("x", "cusum", np.ones(5), at * 1.0, at, at), ert=ERT).why
    nothing = Stream("x", "cusum", np.arange(99.0), np.full(3, np.nan), at, at)
    assert listen(nothing, ert=ERT).why == "no row of the window says anything of it"


def look(home: Path, trained: Reference, now_us: int = NOW_US, **more: object) -> dict[str, Signal]:
    options = {"labels": clicks(0.1, 0.1), "reference": lambda _: trained} | more
    (report,) = stream_run(Settings(home=home), now_us=now_us, hours=24, **options)  # type: ignore[arg-type]
    return {signal.name: signal for signal in report.signals()}


def clicks(before: float, now: float) -> Callable[[int, int, str], pa.Table]:
    """Slates of two items, of which at least one is acted on in that share of the answers."""

    def labels(since_us: int, until_us: int, ranker: str) -> pa.Table:
        share = now if until_us > NOW_US - 2 * DAY_US else before
        random = np.random.default_rng(since_us % 1_000)
        n = 1_500
        acted = (random.random(n) < share).astype(float)
        at = np.sort(random.integers(since_us, until_us, n))
        return pa.table(
            {
                "timestamp": pa.array(np.repeat(at, 2), pa.timestamp("us", tz="UTC")),
                "request_id": [f"r{i}" for i in range(n) for _ in range(2)],
                "user_id": [f"u{i}" for i in range(n) for _ in range(2)],
                "label": np.stack([acted, np.zeros(n)], axis=1).ravel(),
            }
        )

    return labels


def log(home: Path, **options: object) -> Path:
    until_us = NOW_US - SETTLED_US
    for days, requests, how in ((3, 20, {}), (0, 1_500, options)):  # when the ranker began to serve, and the last hours
        end_us = until_us - days * DAY_US
        window = {"since_us": end_us - 20 * HOUR_US, "until_us": end_us, "seed": days}
        write_log(home, WORLD, requests=requests, **window, **how)  # type: ignore[arg-type]
    return home


def test_a_stream_like_training_is_well(tmp_path: Path, reference: Reference):
    said = look(log(tmp_path), reference)
    assert {name: s.verdict for name, s in said.items()} == {"drift.online": "ok"}
    assert said["drift.online"].model == "streamrec-ranking/1"


def test_features_that_fall_back_to_their_defaults_are_found_on_the_stream(tmp_path: Path, reference: Reference):
    log(tmp_path, drift=Drift(since=0.5, missing=0.3))
    said = look(tmp_path, reference)
    assert said["drift.online"].verdict == "breach"
    found = said["drift.online.missing_item_ctr_7d"]
    assert found.verdict == "breach"
    changed_us = NOW_US - SETTLED_US - 10 * HOUR_US
    assert found.since is not None
    assert abs(found.since - changed_us) < HOUR_US
    alarm_us = found.details["alarm_us"]
    assert changed_us < alarm_us < changed_us + 3 * HOUR_US
    assert 0 < found.details["requests"] < 225  # 75 an hour
    assert f"{found.details['requests']} requests after it began" in found.cause
    # A watch that was restarted, and looks an hour later, comes to the same alarm.
    again = look(tmp_path, reference, NOW_US + HOUR_US)["drift.online.missing_item_ctr_7d"]
    assert (again.details["alarm_us"], again.since) == (alarm_us, found.since)


def test_clicks_are_held_against_the_rankers_own_first_answers(tmp_path: Path, reference: Reference):
    said = look(log(tmp_path), reference, labels=clicks(0.2, 0.05))
    assert {name: s.verdict for name, s in said.items()} == {"drift.online": "breach", "drift.online.clicks": "breach"}
    assert said["drift.online.clicks"].details["now"] < 0.1 < said["drift.online.clicks"].details["before"]


def test_clicks_of_the_homes_own_log_count_once_their_labels_are_known(
    tmp_path: Path, reference: Reference, monkeypatch: pytest.MonkeyPatch
):
    rule = LabelRule((Positive(event="click", attribution_h=24),))  # known 25 h after the answer
    monkeypatch.setattr(labelled, "rule_of_bento", lambda *_: rule)
    for seed, hours_ago in ((1, 120), (2, 48), (3, 24)):  # its first answers, what is looked at, what is not known yet
        since_us = NOW_US - hours_ago * HOUR_US
        write_log(tmp_path, WORLD, requests=500, since_us=since_us, until_us=since_us + 20 * HOUR_US, seed=seed)
    shown = read_exposures(tmp_path, None, NOW_US - 60 * HOUR_US).to_pylist()
    acts = [  # of the first answers every third was acted on, of the later ones none
        Event(
            f"e{n}", row["user_id"], row["item_ids"][4], "click", at := row["timestamp_us"] + 1, at, row["request_id"]
        )
        for n, row in enumerate(shown[::3])
    ]
    store = EventStore(tmp_path)
    store.append([acts])
    store.close()
    clicks_ = look(tmp_path, reference, labels=None)["drift.online.clicks"]
    assert clicks_.verdict == "breach"
    assert clicks_.details["before"] == pytest.approx(1 / 3, abs=0.05)
    assert (clicks_.details["now"], clicks_.details["rows"]) == (0.0, pytest.approx(460, abs=40))


def test_a_ranker_that_is_new_has_no_clicks_to_compare_with_and_the_rest_is_judged(
    tmp_path: Path, reference: Reference
):
    end_us = NOW_US - SETTLED_US
    write_log(tmp_path, WORLD, requests=500, since_us=end_us - HOUR_US, until_us=end_us)
    said = look(tmp_path, reference)
    assert said["drift.online"].verdict == "ok"
    assert "not served for long enough" in said["drift.online.clicks"].cause


def test_no_answer_no_reference_and_other_definitions_are_inconclusive(tmp_path: Path, reference: Reference):
    assert "no answer was logged" in look(tmp_path, reference)["drift.online"].cause
    write_log(tmp_path, WORLD, requests=50, since_us=NOW_US - HOUR_US, until_us=NOW_US - SETTLED_US, feature_hash="z")
    assert "other definitions" in look(tmp_path, reference)["drift.online"].cause

    def none(_: object) -> Reference:
        raise NotFound("run 1 kept no reference")

    said = look(tmp_path, reference, reference=none)["drift.online"]
    assert (said.verdict, said.cause) == ("inconclusive", "no reference: run 1 kept no reference")


def test_the_shipped_schema_has_it_watched_as_drift(tmp_path: Path):
    schema = read_schema(schema_path(tmp_path))
    row = schema.row("drift.online.score")
    assert row is not None
    assert (row.check, SUBJECTS["drift"]) == ("online", "quality")
    (said,) = signals_of("online", Asked(Settings(home=tmp_path), schema, "", NOW_US))
    assert (said.name, said.verdict, said.cause) == ("drift.online", "inconclusive", "no answer was logged lately")
