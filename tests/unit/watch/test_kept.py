"""The watch removes what is past its time, and tells of an erasure that does not end."""

from pathlib import Path

import pytest

from bentos.telemetry.erasure import ask
from bentos.telemetry.roll import roll_lock
from contracts.settings import Settings
from monitoring.privacy.forget import forget
from monitoring.watch.checks import drift, skew
from monitoring.watch.checks.base import Asked
from monitoring.watch.checks.kept import HOUR_US, check
from monitoring.watch.schema import schema_of

NOW_US = 20_000 * 24 * HOUR_US


def asked(home: Path, hours: float) -> Asked:
    return Asked(Settings(home=home), schema_of(home, ""), "", NOW_US + int(hours * HOUR_US))


def test_an_erasure_that_was_killed_is_told_after_a_day_until_it_is_asked_for_again(tmp_path: Path) -> None:
    ask(tmp_path, ["u1"], NOW_US)  # and killed before the events were gone
    (early,), (late,) = check(asked(tmp_path, 2)), check(asked(tmp_path, 25))
    assert (early.verdict, early.value) == ("ok", 2.0)
    assert (late.verdict, late.since) == ("breach", NOW_US)
    assert late.cause == "1 erasures are under way, of which 1 must be asked for again"
    forget(Settings(home=tmp_path), "u1", NOW_US + 26 * HOUR_US)
    (after,) = check(asked(tmp_path, 27))
    assert (after.verdict, after.value, after.details["under_way"]) == ("ok", 0.0, 0)


def test_a_log_that_another_process_is_rolling_is_no_verdict(tmp_path: Path) -> None:
    ask(tmp_path, ["u1"], NOW_US)
    folder = tmp_path / "log" / "exposures"
    folder.mkdir(parents=True)
    with roll_lock(folder) as ours:
        assert ours
        (found,) = check(asked(tmp_path, 25))
    assert found.verdict == "inconclusive"
    assert "is rolling" in found.cause


def test_the_signal_has_an_owner_and_a_runbook(tmp_path: Path) -> None:
    row = next(row for row in schema_of(tmp_path, "").signals if row.fits("age.erasure"))
    assert (row.check, row.owner, row.runbook) == ("kept", "data", "docs/runbooks/erasure-waits.md")


def test_the_drift_check_makes_pages_only_where_there_is_room_and_takes_the_engine_of_the_schema(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[object, object]] = []
    monkeypatch.setattr(drift, "drift_run", lambda *_, **given: seen.append((given["pages"], given["engine"])) or [])
    schema = schema_of(tmp_path, "")
    free = schema.model_copy(update={"windows": schema.windows.model_copy(update={"engine": "scipy"})})
    drift.check(Asked(Settings(home=tmp_path), schema, "", NOW_US))
    drift.check(Asked(Settings(home=tmp_path, reports_mb=0), free, "", NOW_US))
    assert seen == [(tmp_path / "reports", None), (None, "scipy")]


def test_skew_of_a_bento_that_was_built_elsewhere_is_that_of_the_ranker_that_answers_here(tmp_path: Path) -> None:
    (found,) = skew.check(Asked(Settings(home=tmp_path), schema_of(tmp_path, ""), "streamrec:elsewhere", NOW_US))
    assert (found.name, found.verdict) == ("skew.whole", "inconclusive")
    assert found.cause == "nothing was answered in this window"
