"""The review queue is bounded and keeps no user; cost is measured figures at given prices, by hand here."""

from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID

import pyarrow as pa
import pytest

from bentos.telemetry.contexts import ContextLog
from contracts.errors import ArtifactError, NotFound
from contracts.exposures import ContextRecord
from contracts.settings import Settings
from monitoring.cost import FULL, Measured, Prices, Sample, cost
from monitoring.review.queue import DOCUMENT, LATE_US, done, fill, open_cases
from monitoring.review.select import DAY_US, cases, queued
from monitoring.watch.checks import review
from monitoring.watch.checks.base import Asked
from monitoring.watch.due import due
from monitoring.watch.schema import Review, read_schema, schema_path
from registry.control.documents import MemoryDocuments

RULES = Review(margin=0.01, value_over=100, most_a_day=2, most_open=3)
DAY = 20_000 * DAY_US


def row(n: int, gap: float, day: int = 0) -> dict[str, Any]:
    at = DAY + day * DAY_US + n
    scores = {"item_ids": ["a", "b"], "scores": [0.9, 0.5], "top_item_ids": ["a", "b", "c"]}
    return {"request_id": f"r{n}", "timestamp_us": at, "user_id": "u", **scores, "top_scores": [0.9, 0.5, 0.5 - gap]}


def test_uncertain_and_dear_at_once_the_least_certain_first() -> None:
    rows = [row(1, 0.009), row(2, 0.001), row(3, 0.2), row(4, -0.1)]
    found = cases(rows, {"a": 20.0, "b": 150.0}, RULES)
    assert [(c["id"], c["margin"], c["value"], c["item_id"]) for c in found] == [
        ("r2", 0.001, 150.0, "b"),
        ("r1", 0.009, 150.0, "b"),
    ]
    assert "user_id" not in found[0]
    assert cases(rows, {"a": 20.0}, RULES) == []


def test_the_queue_is_bounded_counts_what_it_dropped_and_forgets_what_is_old() -> None:
    found = cases([row(n, 0.001 * n, day) for n, day in ((1, 0), (2, 0), (3, 0), (4, 1), (5, 1))], {"b": 200.0}, RULES)
    queue = queued({}, found, RULES, DAY + 2 * DAY_US)
    assert [c["id"] for c in queue["cases"]] == ["r1", "r2", "r4"]
    assert queue["dropped"] == 2
    again = queued(queue, found, RULES, DAY + 2 * DAY_US)
    assert [c["id"] for c in again["cases"]] == ["r1", "r2", "r4"]
    assert queued(queue, [], RULES, DAY + 40 * DAY_US)["cases"] == []


def test_what_is_done_leaves_room_and_an_unknown_case_is_not_found() -> None:
    store = MemoryDocuments()
    store.write(DOCUMENT, 0, queued({}, cases([row(1, 0.001)], {"b": 200.0}, RULES), RULES, DAY + 5))
    assert done(store, "r1", "fine")["cases"][0]["state"] == "done"
    with pytest.raises(NotFound, match="r9"):
        done(store, "r9", "")


CHECKS = {"levels": (0.5, 10, 1.0), "freshness": (3.0, 2, 15.0), "drift": (36.0, 1, 60.0), "skew": (0.0, 0, 60.0)}
HALF = Sample(0.5, 0.25, 0.0)
PRICES = Prices(cpu_hour=0.10, gb_month=0.02)
MEASURED = Measured(CHECKS, 1_000_000, 100.0, 1000.0, 2000.0, 10_000.0, HALF, 20e-6, 60e-6, 0.009, 30)


def test_a_month_of_each_level_from_measured_figures() -> None:
    found = cost(MEASURED, PRICES)
    # levels: 43,200 looks of 0.5 s are 6 h; freshness: 2,880 of 3 s are 2.4 h; 3 GB of exposures.
    assert found["levels"]["basic"]["cpu_hours"] == pytest.approx(8.4)
    assert found["levels"]["basic"]["stored_gb"] == pytest.approx(3.0)
    assert found["levels"]["basic"]["month"] == pytest.approx(0.84 + 0.06)
    # drift: 720 of 36 s are 7.2 h; half of 30 million records at 20 µs are 300 s; of each half 1,000 bytes and, of a
    # quarter of those, 2,000 more: 22.5 GB.
    assert found["levels"]["standard"]["cpu_hours"] == pytest.approx(8.4 + 7.2 + 300 / 3600, abs=1e-3)
    assert found["levels"]["standard"]["stored_gb"] == pytest.approx(3.0 + 22.5)
    # In full each of 30 million has 13,000 bytes and 60 µs.
    assert found["levels"]["full"]["stored_gb"] == pytest.approx(3.0 + 390.0)
    assert found["levels"]["full"]["cpu_hours"] == pytest.approx(8.4 + 7.2 + 0.5, abs=1e-3)
    assert found["levels"]["full"]["same_as"] is None
    assert found["levels"]["basic"]["not_looked_yet"] == ["kept"]
    assert found["levels"]["full"]["not_looked_yet"] == ["kept", "online", "quality", "review", "skew"]
    assert found["serving"]["cpu_hours"] == pytest.approx(75.0)
    assert found["unknown"] == []


def test_upkeep_of_what_is_kept_is_part_of_every_level() -> None:
    kept = replace(MEASURED, checks={**CHECKS, "kept": (5.0, 1, 60.0)})
    for level in ("basic", "standard", "full"):
        before, after = (cost(m, PRICES)["levels"][level]["cpu_hours"] for m in (MEASURED, kept))
        assert after - before == pytest.approx(1.0)


def test_with_all_logged_in_full_already_the_upper_levels_are_one_and_say_so() -> None:
    levels = cost(replace(MEASURED, sample=FULL), PRICES)["levels"]
    assert levels["full"].pop("same_as") == "standard"
    assert levels["full"] == levels["standard"]


def test_what_was_not_measured_is_named_and_never_priced_as_nothing() -> None:
    nothing = Measured({}, None, None, None, None, None, HALF, None, None, None, 30)
    found = cost(nothing, PRICES)
    assert found["serving"] is None
    sizes = {"exposure_bytes", "context_bytes", "rows_bytes", "candidates_bytes"}
    assert set(found["unknown"]) == {"requests_a_day", *sizes, "context_cpu_s", "full_context_cpu_s", "serving_cpu_s"}
    assert found["levels"]["basic"]["unknown"] == ["requests_a_day", "exposure_bytes"]
    # This home logs no candidates, so that what they take is no gap in its level.
    assert set(found["levels"]["standard"]["unknown"]) == {
        "requests_a_day", "exposure_bytes", "context_bytes", "rows_bytes", "context_cpu_s",
    }  # fmt: skip
    found = cost(replace(MEASURED, context_cpu_s=None, exposure_bytes=None), PRICES)
    assert set(found["unknown"]) == {"context_cpu_s", "exposure_bytes"}


def answered(home: Path, *moments_us: int) -> None:
    """One uncertain answer at each moment, in the log as a worker writes it."""
    log = ContextLog(home)
    for at_us in moments_us:
        scores = {"item_ids": ["a", "b"], "scores": [0.9, 0.5]}
        top = {"top_item_ids": ["a", "b", "c"], "top_scores": [0.9, 0.5, 0.499]}
        more = {"k": 2, "context": {}, "exclude": [], "features": [], "candidates": {}, "stages_ms": {}}
        record = {"request_id": str(UUID(int=at_us)), "timestamp_us": at_us, "clock_us": at_us, "user_id": "u"}
        log.append(ContextRecord(**record, **scores, **top, **more, digest="d", ranked_by="dcn"))  # type: ignore[arg-type]
    log.close()


@pytest.fixture
def items(tmp_path: Path) -> Path:
    """`b` is dear, `a` is not, and nobody knows of `c`."""
    path = tmp_path / "items.arrow"
    table = pa.table({"item_id": ["a", "b", "c"], "price": [20.0, 150.0, None]})
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    return path


def test_a_look_takes_what_was_answered_since_the_last_and_misses_nothing_that_is_written_late(
    tmp_path: Path, items: Path
) -> None:
    store, rules = MemoryDocuments(), Review(margin=0.01, value_over=100)
    now_us = DAY + DAY_US
    answered(tmp_path, DAY - LATE_US - 1, DAY, now_us - LATE_US, now_us - 1)
    queue = fill(store, tmp_path, items, rules, now_us)
    assert [c["at_us"] for c in queue["cases"]] == [DAY]  # a day back, up to a minute ago
    assert queue["cases"][0]["item_id"] == "b"
    hour_us = DAY_US // 24
    queue = fill(store, tmp_path, items, rules, now_us + hour_us)
    assert [c["at_us"] for c in queue["cases"]] == [DAY, now_us - LATE_US, now_us - 1]
    assert fill(store, tmp_path, items, rules, now_us)["until_us"] == now_us + hour_us - LATE_US  # never back
    assert open_cases(queue) == 3
    assert queue["dropped"] == 0


def test_items_without_a_column_of_what_is_at_stake_are_said(tmp_path: Path, items: Path) -> None:
    with pytest.raises(ArtifactError, match="no column margin_eur"):
        fill(MemoryDocuments(), tmp_path, items, Review(value="margin_eur"), DAY)


def test_the_watch_fills_the_queue_and_its_signal_is_how_many_wait(
    tmp_path: Path, items: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now_us = DAY + DAY_US
    answered(tmp_path, now_us - DAY_US // 2, now_us - DAY_US // 3)
    shipped = read_schema(schema_path(tmp_path))
    schema = shipped.model_copy(update={"review": Review(margin=0.01, value_over=100, most_open=2)})
    asked = Asked(Settings(home=tmp_path), schema, "streamrec:a", now_us)
    (unknown,) = review.check(asked)
    assert (unknown.verdict, unknown.model) == ("inconclusive", "")
    assert "no Bento streamrec:a" in unknown.cause
    monkeypatch.setattr(review, "items_of", lambda *_: items)
    (full,) = review.check(asked)
    assert (full.name, full.verdict, full.value, full.threshold) == ("review.open", "breach", 2.0, 2.0)
    assert "no more are queued" in full.cause
    assert ("review", "streamrec:a") in due(shipped, {}, ["streamrec:a", "streamrec:b"], now_us)
    assert ("review", "streamrec:b") not in due(shipped, {}, ["streamrec:a", "streamrec:b"], now_us)
