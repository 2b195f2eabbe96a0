"""A home whose logs hold what a funnel over the synthetic world really answered."""

import math
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from uuid6 import uuid7

from benchmarks.reference_world import NOW_US, write_world
from bentos.recommender.assemble import load_models
from bentos.recommender.funnel import Funnel
from bentos.recommender.rules import default_rules
from bentos.recommender.side_effects import context_record, exposure
from bentos.recommender.types import Query, Slate
from bentos.telemetry.contexts import ContextLog
from bentos.telemetry.exposures import ExposureLog
from contracts.exposures import ContextRecord, Exposure, Versions
from features.online.base import UserState

START_US = 1_760_000_000_000_000
VERSIONS = Versions("streamrec:b", "r/1", "k/1", "f/1", "rules", features="hash", item_snapshot="s1")


@pytest.fixture(scope="session")
def funnel(tmp_path_factory: pytest.TempPathFactory) -> Funnel:
    folders = write_world(tmp_path_factory.mktemp("world"), users=30, items=400)
    return Funnel(load_models(folders), default_rules())


Answered = tuple[Query, Slate, Exposure, ContextRecord]


@pytest.fixture
def answer(funnel: Funnel) -> Callable[..., Answered]:
    def make(number: int, k: int = 20, **context: str) -> Answered:
        query = Query(
            request_id=str(uuid7()),
            user_id=f"u{number % 30}",
            k=k,
            now_us=NOW_US,
            deadline=math.inf,
            context=context or {"country": "DE", "device": "ios"},
        )
        slate = funnel.run(query, UserState(query.user_id))
        at = START_US + number * 1_000_000
        shown = msgspec.structs.replace(exposure(query, slate, VERSIONS), timestamp_us=at)
        record = msgspec.structs.replace(context_record(query, slate, [], with_rows=True), timestamp_us=at + 1_000)
        return query, slate, shown, record

    return make


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Writes exposures and contexts as two processes do, and closes both logs."""

    def make(answers: list[Answered], *, contexts: list[ContextRecord] | None = None) -> Path:
        exposures, kept = ExposureLog(tmp_path), ContextLog(tmp_path)
        for _, _, shown, _ in answers:
            exposures.append(shown)
        for record in contexts if contexts is not None else [record for *_, record in answers]:
            kept.append(record)
        exposures.close()
        kept.close()
        return tmp_path

    return make
