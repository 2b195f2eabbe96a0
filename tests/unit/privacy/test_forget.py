"""One user out of everything that is kept: whole, again after a crash, and nobody else touched."""

import asyncio
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bentos.telemetry.attempts import read_attempts
from bentos.telemetry.contexts import ContextLog, read_contexts
from bentos.telemetry.erasure import pending
from bentos.telemetry.event_log import read_events
from bentos.telemetry.event_store import EventStore
from bentos.telemetry.exposures import ExposureLog, read_exposures
from bentos.telemetry.roll import roll
from contracts.events import Event
from contracts.ids import IdIndex
from contracts.settings import Settings
from contracts.user_keys import UserKeys, rotate
from features.online.base import PrecomputedList
from features.online.sqlite import SqliteStore
from monitoring.privacy.elsewhere import kept_elsewhere
from monitoring.privacy.forget import forget, settled
from monitoring.privacy.upkeep import keep_up
from tests.serving_processes import wait_until
from tests.unit.telemetry.conftest import START_US, context_record, exposure

__all__ = ["context_record", "exposure"]
LATER_US = START_US + 1_000_000


@dataclass
class Home:
    settings: Settings
    log: ExposureLog

    def users(self) -> dict[str, set[str]]:
        home = self.settings.home
        tables = read_exposures(home), read_contexts(home), read_events(home)
        return {
            name: set(table["user_id"].to_pylist())
            for name, table in zip(("exposures", "contexts", "events"), tables, strict=True)
        }


@pytest.fixture
def home(tmp_path, exposure, context_record):
    """u1 and u2, in rolled files and in a segment that is still written."""
    settings = Settings(home=tmp_path)
    rolled, contexts = ExposureLog(tmp_path), ContextLog(tmp_path)
    for number in range(4):
        user = f"u{1 + number % 2}"
        rolled.append(exposure(number, user_id=user, unit=user))
    contexts.append(context_record("r0"))
    rolled.close()
    contexts.close()
    roll(tmp_path)
    store = EventStore(tmp_path)
    store.append([[Event(f"e{n}", f"u{1 + n % 2}", "i1", "click", START_US, START_US) for n in range(4)]])
    store.close()
    log = ExposureLog(tmp_path)
    log.append(exposure(9, user_id="u1", unit="u1"))
    wait_until(lambda: log.counts().written, why="a written record")
    yield Home(settings, log)
    log.close()


def test_what_is_kept_of_the_user_goes_and_others_stay(home):
    assert home.users() == {"exposures": {"u1", "u2"}, "contexts": {"u1"}, "events": {"u1", "u2"}}
    plan = forget(home.settings, "u1", LATER_US, dry_run=True)
    assert plan.removed == {"events": 2, "exposures": 2, "contexts": 1, "attempts": 0}
    assert home.users()["events"] == {"u1", "u2"}
    done = forget(home.settings, "u1", LATER_US)
    assert done.removed["events"] == 2
    assert (done.removed["exposures"], done.removed["contexts"]) == (2, 1)
    assert done.waiting == 1
    state = asyncio.run(SqliteStore(home.settings.home).read_user("u1"))
    assert (state.last, state.session) == ((), None)
    assert len(read_attempts(home.settings.home)) == 0


def test_a_segment_that_is_still_written_is_rolled_without_the_user(home):
    forget(home.settings, "u1", LATER_US)
    assert settled(home.settings.home, LATER_US + 10**9) == 1
    home.log.close()
    assert settled(home.settings.home, LATER_US + 10**9) == 0
    assert pending(home.settings.home).pending == ()
    assert home.users() == {"exposures": {"u2"}, "contexts": set(), "events": {"u2"}}
    words = [p for p in home.settings.home.rglob("*") if p.is_file() and b"u1" in p.read_bytes()]
    assert [p.name for p in words if p.suffix in (".parquet", ".seg")] == []


def test_answers_of_afterwards_are_a_new_acquaintance(home, exposure):
    forget(home.settings, "u1", LATER_US)
    home.log.append(exposure(99, user_id="u1", unit="u1", timestamp_us=LATER_US + 5))
    home.log.close()
    settled(home.settings.home, LATER_US + 10**9)
    kept = read_exposures(home.settings.home).to_pylist()
    assert [row["request_id"] for row in kept if row["user_id"] == "u1"] == ["r99"]


def test_a_killed_run_is_ended_by_the_same_call(home, monkeypatch):
    def killed(*arguments, **more):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("monitoring.privacy.forget._log", killed)
        with pytest.raises(KeyboardInterrupt):
            forget(home.settings, "u1", LATER_US)
    assert len(pending(home.settings.home).pending) == 1
    forget(home.settings, "u1", LATER_US)
    assert [one.events_gone for one in pending(home.settings.home).pending] == [True]
    assert read_contexts(home.settings.home).num_rows == 0


def test_one_killed_before_the_events_were_gone_is_not_ended_by_others(home, monkeypatch):
    def killed(*arguments, **more):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("monitoring.privacy.forget.forget_events", killed)
        with pytest.raises(KeyboardInterrupt):
            forget(home.settings, "u1", LATER_US)
    home.log.close()
    _, under_way = keep_up(home.settings, LATER_US + 10**9)
    assert under_way == 1
    assert home.users() == {"exposures": {"u2"}, "contexts": set(), "events": {"u1", "u2"}}
    forget(home.settings, "u1", LATER_US)
    assert keep_up(home.settings, LATER_US + 10**9)[1] == 0
    assert home.users()["events"] == {"u2"}


def test_no_byte_of_the_user_is_left_in_the_files_of_events_and_lists(tmp_path):
    home = Settings(home=tmp_path)
    name = "a-name-to-be-found"
    store = EventStore(tmp_path)
    store.append([[Event("e1", name, "i1", "click", START_US, START_US), Event("e2", "u2", "i1", "click", 5, 5)]])
    store.close()
    online = SqliteStore(tmp_path)
    made = PrecomputedList(("i1",), (0.5,), "s", "streamrec:a", START_US, "")
    online.publish_lists("s", {name: made, "u2": made})
    online.close()
    databases = lambda: [p for p in tmp_path.glob("*.db*") if name.encode() in p.read_bytes()]  # noqa: E731
    assert databases()
    assert forget(home, name, LATER_US).removed["online features, sessions and lists"] == 2
    assert databases() == []


def test_what_is_not_changed_is_named_where_it_holds_the_user(tmp_path):
    snapshot, run = tmp_path / "snapshots" / "abc", tmp_path / "mlartifacts" / "streamrec" / "run1" / "artifacts"
    for folder, file in ((snapshot, "interactions.parquet"), (run / "reference", "rows.parquet")):
        folder.mkdir(parents=True)
        pq.write_table(pa.table({"user_id": ["u1"]}), folder / file)
    bundle = tmp_path / "mlartifacts" / "streamrec" / "models" / "m-1" / "artifacts" / "bundle"
    bundle.mkdir(parents=True)
    IdIndex.build(["u1"]).save(bundle, "user")
    known, unknown = kept_elsewhere(tmp_path, "u1"), kept_elsewhere(tmp_path, "u2")
    assert [words.split()[0] for words in known[:3]] == ["data", "reference", "1"]
    assert known[3:] == unknown


def test_a_hidden_user_is_found_under_every_key(tmp_path, exposure):
    path = tmp_path / "users.json"
    rotate(path, 0)
    settings = Settings(home=tmp_path / "home", user_keys=path)
    for moment_us in (1, 2):
        log = ExposureLog(settings.home, hide=UserKeys(path).hide)
        log.append(exposure(moment_us, user_id="u1", unit="u1"))
        log.append(exposure(10 + moment_us, user_id="u2", unit="session-7"))
        log.close()
        rotate(path, moment_us)
    rows = read_exposures(settings.home).to_pylist()
    assert {row["user_id"][:3] for row in rows} == {"k1.", "k2."}
    assert {row["unit"] for row in rows if row["unit"] != row["user_id"]} == {"session-7"}
    forget(settings, "u1", LATER_US)
    assert len(read_exposures(settings.home)) == 2


def test_a_user_nobody_knows_is_no_error(tmp_path):
    done = forget(Settings(home=tmp_path), "nobody", LATER_US)
    assert sum(done.removed.values()) == 0
    assert done.done
