"""The drift run over logs as a service writes them: what is found, and what is said when there is nothing to find."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from benchmarks.watch_log import BENTO, MINUTE_US, RANKER, Drift, World, write_log, write_reference
from bentos.telemetry.kinds import EXPOSURES
from bentos.telemetry.roll import log_folder
from contracts.errors import NotFound
from contracts.settings import Settings
from monitoring.drift.service.labelled import LabelSource
from monitoring.drift.service.report import DriftReport
from monitoring.drift.service.run import drift_run
from monitoring.drift.service.season import DAY_US
from monitoring.drift.service.window import gather, last_answers
from monitoring.frames.reference import Reference, read_reference
from monitoring.frames.serving import serving_frame
from monitoring.signals import Signal

SINCE_US = 1_760_000_000_000_000
UNTIL_US = SINCE_US + 60 * MINUTE_US
WORLD = World.draw(0, items=500, users=4_000)


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Reference:
    folder = write_reference(tmp_path_factory.mktemp("trained") / "reference", WORLD, rows=30_000)
    return read_reference(folder, "run", "models:/streamrec-ranking/1")


def run(home: Path, reference: Reference, **options: object) -> list[DriftReport]:
    settings = Settings(home=home)
    window = options.pop("window", (SINCE_US, UNTIL_US))
    return drift_run(
        settings,
        *window,  # type: ignore[misc]
        now_us=UNTIL_US,
        engine="scipy",
        reference=lambda _: reference,
        **options,  # type: ignore[arg-type]
    )


def log(home: Path, *, back_us: int = 0, requests: int = 1_500, seed: int = 1, **options: object) -> Path:
    write_log(
        home,
        WORLD,
        requests=requests,
        since_us=SINCE_US - back_us,
        until_us=UNTIL_US - back_us,
        seed=seed,
        **options,  # type: ignore[arg-type]
    )
    return home


def named(signals: list[Signal]) -> dict[str, str]:
    return {s.name: s.verdict for s in signals}


def test_a_window_like_training_is_none_and_says_so_in_every_kind_of_check(tmp_path: Path, reference: Reference):
    (report,) = run(log(tmp_path), reference)
    assert report.verdict == "none", [f.text for f in report.judged.of("drift")] if report.judged else report.why
    assert report.rows == 30_000
    said = named(report.signals())
    assert said["drift.input"] == said["drift.missing"] == said["drift.output"] == said["drift.severity"] == "ok"
    assert {s.model for s in report.signals()} == {"streamrec-ranking/1"}


def test_a_price_that_rises_at_noon_is_named_with_its_moment_and_its_weight(tmp_path: Path, reference: Reference):
    (report,) = run(log(tmp_path, drift=Drift(since=0.5, price=1.8)), reference)
    assert report.verdict == "drift"
    assert report.judged is not None
    (price,) = [f for f in report.judged.of("drift") if f.check == "input.log_price"]
    assert price.since_us is not None
    assert abs(price.since_us - (SINCE_US + 30 * MINUTE_US)) < 5 * MINUTE_US
    assert report.judged.severity.by_importance
    breaches = [s for s in report.signals() if s.name == "drift.input.log_price"]
    assert breaches[0].verdict == "breach"
    assert breaches[0].since == price.since_us


def test_features_that_fall_back_to_their_defaults_are_missing_rates(tmp_path: Path, reference: Reference):
    (report,) = run(log(tmp_path, drift=Drift(missing=0.1)), reference)
    assert named(report.signals())["drift.missing"] == "breach"


def test_a_country_that_comes_more_often_last_week_too_is_seasonal(tmp_path: Path, reference: Reference):
    log(tmp_path, drift=Drift(country=2.5))
    assert run(tmp_path, reference)[0].verdict == "drift"
    (report,) = run(tmp_path, reference, season="weekday")
    assert report.verdict == "drift"
    assert report.judged is not None
    assert "nothing was logged in the same days of the 4 weeks before" in report.judged.found["input.country"].why
    for weeks in (1, 2):
        log(tmp_path, back_us=weeks * 7 * DAY_US, seed=10 + weeks, drift=Drift(country=2.5))
    (report,) = run(tmp_path, reference, season="weekday")
    assert report.verdict == "seasonal"
    assert named(report.signals())["drift.input"] == "ok"


def test_a_whole_day_has_its_weekday_and_a_year_that_is_not_kept_is_told(tmp_path: Path, reference: Reference):
    day = (UNTIL_US - DAY_US, UNTIL_US)  # as the watch looks at it
    for weeks in range(3):
        since_us, until_us = (at - 7 * weeks * DAY_US for at in day)
        window = {"since_us": since_us, "until_us": until_us, "seed": 20 + weeks}
        write_log(tmp_path, WORLD, requests=500, drift=Drift(country=2.5), **window)
    (report,) = run(tmp_path, reference, season="weekday", window=day)
    assert report.verdict == "seasonal"
    assert named(report.signals())["drift.season"] == "ok"
    (report,) = run(tmp_path, reference, season="year", window=day)
    assert report.verdict == "drift"
    season = next(s for s in report.signals() if s.name == "drift.season")
    assert season.verdict == "inconclusive"
    assert season.cause.endswith("contexts are kept for 90 days (setting keep_contexts_d)")
    assert season.cause == report.document()["no_season"]
    (report,) = run(tmp_path, reference, season="hour", window=(day[0] - DAY_US, day[1]))
    assert "a window of 2 days overlaps the same hours" in report.document()["no_season"]


def test_a_window_without_an_answer_is_inconclusive(tmp_path: Path, reference: Reference):
    (report,) = run(log(tmp_path, requests=50), reference, window=(0, 1_000))
    assert (report.verdict, report.why) == ("inconclusive", "no answer of the window was logged")
    assert named(report.signals()) == {"drift.window": "inconclusive"}


def test_a_corrupt_partition_is_named_and_the_rest_is_judged(tmp_path: Path, reference: Reference):
    log(tmp_path, drift=Drift(price=3.0))
    log(tmp_path, requests=10, seed=2)
    broken = next(log_folder(tmp_path, EXPOSURES).glob("*/drawn-2-*.parquet"))
    broken.write_bytes(b"PAR1 no more")
    (report,) = run(tmp_path, reference)
    assert report.verdict == "drift"
    assert broken.name in report.problems[0]
    said = named(report.signals())
    assert (said["drift.window"], said["drift.input"]) == ("inconclusive", "breach")


def test_a_reference_of_other_features_is_inconclusive(tmp_path: Path, reference: Reference):
    (report,) = run(log(tmp_path, requests=50, feature_hash="another"), reference)
    assert report.verdict == "inconclusive"
    assert "of other feature definitions" in report.why


def test_rows_from_the_future_are_left_out_and_told(tmp_path: Path, reference: Reference):
    log(tmp_path)
    write_log(tmp_path, WORLD, requests=50, since_us=UNTIL_US + DAY_US, until_us=UNTIL_US + 2 * DAY_US, seed=5)
    (report,) = run(tmp_path, reference, window=(SINCE_US, UNTIL_US + 3 * DAY_US))
    assert report.rows == 30_000
    assert "50 answers are dated after now" in report.problems[-1]


@pytest.mark.parametrize(("ahead", "verdict"), [(10, "none"), (50, "inconclusive")])
def test_a_window_that_ends_now_meets_the_answers_of_a_clock_that_is_ahead(
    tmp_path: Path, reference: Reference, ahead: int, verdict: str
):
    log(tmp_path)
    write_log(tmp_path, WORLD, requests=ahead, since_us=UNTIL_US + DAY_US, until_us=UNTIL_US + 2 * DAY_US, seed=5)
    (report,) = run(tmp_path, reference)
    assert report.verdict == verdict
    said = {s.name: s for s in report.signals()}
    assert f"{ahead} answers are dated after now" in said["drift.window"].cause
    if verdict == "inconclusive":  # above 1 %: the rest was judged, but is not known to be the whole
        assert report.document()["why"].startswith("clock skew: 50 answers")
        assert said["drift.severity"].verdict == "inconclusive"


def test_a_drift_stays_one_where_a_clock_is_ahead(tmp_path: Path, reference: Reference):
    log(tmp_path, drift=Drift(price=3.0))
    write_log(tmp_path, WORLD, requests=50, since_us=UNTIL_US + DAY_US, until_us=UNTIL_US + 2 * DAY_US, seed=5)
    assert run(tmp_path, reference)[0].verdict == "drift"


def test_without_kept_rows_it_says_which_settings_keep_them(tmp_path: Path, reference: Reference):
    (report,) = run(log(tmp_path, requests=50, rows_share=0.0), reference)
    assert report.verdict == "inconclusive"
    assert "log_rows" in report.why


def test_a_model_whose_training_kept_no_reference_is_inconclusive(tmp_path: Path):
    def none(_: object) -> Reference:
        raise NotFound("run 1 kept no reference to measure drift against")

    log(tmp_path, requests=50)
    (report,) = drift_run(Settings(home=tmp_path), SINCE_US, UNTIL_US, now_us=UNTIL_US, engine="scipy", reference=none)
    assert report.verdict == "inconclusive"
    assert report.why.startswith("no reference: run 1 kept")
    assert report.ranker == RANKER
    assert {s.model for s in report.signals()} == {BENTO}  # as the watch calls who serves, or it would hear nothing


def test_the_last_answers_begin_where_there_are_so_many(tmp_path: Path):
    log(tmp_path, requests=200)
    log(tmp_path, requests=100, seed=2, back_us=DAY_US)
    found = gather(tmp_path, last_answers(tmp_path, 120), UNTIL_US, now_us=UNTIL_US)
    assert found.answers == 120
    assert last_answers(tmp_path, 10_000) >= SINCE_US - DAY_US


def test_rows_of_other_features_are_left_out_and_the_rest_is_judged(tmp_path: Path, reference: Reference):
    log(tmp_path, drift=Drift(price=3.0))
    log(tmp_path, requests=20, seed=2, feature_hash="another")
    (report,) = run(tmp_path, reference)
    assert report.verdict == "drift"
    assert "400 shown items were served with other feature definitions" in report.problems[0]


def clicks(home: Path, *, swapped_from_us: int) -> LabelSource:
    """Labels as the scores say; of DE, from a moment on, of those that were scored least."""

    def labels(since_us: int, until_us: int, ranker: str) -> pa.Table:
        shown = serving_frame(home, since_us, until_us)
        score = np.asarray(shown["score"], float)
        swapped = (np.asarray(shown["country"]) == "DE") & (since_us >= swapped_from_us)
        p = np.where(swapped, np.quantile(score, 0.9) - score, score).clip(0, 1)
        label = np.random.default_rng(since_us % 1_000).random(len(score)) < p
        return shown.append_column("label", pa.array(label.astype(float)))

    return labels


def test_preferences_of_one_segment_that_swap_are_found_while_inputs_are_as_before(
    tmp_path: Path, reference: Reference
):
    log(tmp_path, requests=4_000, drift=Drift())
    log(tmp_path, requests=4_000, back_us=2 * 60 * MINUTE_US, seed=2)
    (same,) = run(tmp_path, reference, labels=clicks(tmp_path, swapped_from_us=UNTIL_US))
    assert (same.verdict, named(same.signals())["drift.concept"]) == ("none", "ok")
    (report,) = run(tmp_path, reference, labels=clicks(tmp_path, swapped_from_us=SINCE_US))
    said = named(report.signals())
    assert (said["drift.input"], said["drift.concept"], said["drift.severity"]) == ("ok", "breach", "breach")
    assert report.judged is not None
    assert report.judged.severity.outcomes == "moved"


def test_a_ranker_that_has_not_served_before_has_nothing_to_compare_clicks_with(tmp_path: Path, reference: Reference):
    (report,) = run(log(tmp_path), reference, labels=clicks(tmp_path, swapped_from_us=SINCE_US))
    concept = next(s for s in report.signals() if s.name == "drift.concept")
    assert concept.verdict == "inconclusive"
    assert "has not served before this window" in concept.cause
