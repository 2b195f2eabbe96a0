"""The service's own log, written by the real writers, as a data set."""

import json
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from bentos.catalogue.store import CatalogueStore
from bentos.telemetry.contexts import ContextLog
from bentos.telemetry.event_store import EventStore
from bentos.telemetry.event_stream import RedisEventLog
from bentos.telemetry.exposures import ExposureLog
from cli.main import app
from contracts.dataset import DatasetConfig
from contracts.errors import DataError, NotFound
from contracts.events import Event
from contracts.exposures import ContextRecord, Exposure, Versions
from contracts.live_items import ItemChange, ItemFacts
from contracts.user_keys import UserKeys, rotate
from training.data import export as exporting
from training.data.contract import validate_folder
from training.data.export import config_toml, export
from training.data.snapshot import take

SECOND_US = 1_000_000
T_US = 1_750_000_000 * SECOND_US  # 2025-06-15
BASE_US = 1_300_000_000 * SECOND_US  # 2011
ITEMS = [f"i{n}" for n in range(6)]
TIME = pa.timestamp("us", tz="UTC")


@pytest.fixture
def home(tmp_path: Path) -> Path:
    folder = tmp_path / "home"
    folder.mkdir()
    return folder


@pytest.fixture
def world(tmp_path: Path) -> Path:
    """A data set whose log ended in 2011, with a context column that models read and no impressions."""
    folder = tmp_path / "world"
    folder.mkdir()
    pq.write_table(
        pa.table(
            {
                "user_id": ["u1", "u2", "u3"],
                "item_id": ["i0", "i1", "i2"],
                "timestamp": pa.array([BASE_US - 2 * SECOND_US, BASE_US - SECOND_US, BASE_US], TIME),
                "event": ["purchase"] * 3,
                "value": [1.0, 2.0, 3.0],
                "device": ["web"] * 3,
            }
        ),
        folder / "interactions.parquet",
    )
    pq.write_table(
        pa.table({"item_id": ITEMS, "category": ["a", "b"] * 3, "published_at": pa.array([0] * 6, TIME)}),
        folder / "items.parquet",
    )
    pq.write_table(pa.table({"user_id": ["u1", "u2"], "country": ["DE", "FR"]}), folder / "users.parquet")
    (folder / "dataset.toml").write_text(
        'name = "world"\nclock = "log_end"\nslices = ["country", "device"]\n[[positives]]\nevent = "purchase"\n'
        '[[features]]\ncolumn = "device"\ntable = "interactions"\nkind = "categorical"\n'
    )
    return folder


def shown(home: Path, request: str, items: Sequence[str], at_us: int = T_US, user: str = "u1", **more: Any) -> Exposure:
    versions = Versions("b", "r", "k", "f", "rules")
    fields: dict[str, Any] = {"outcome": "ok"} | more
    return Exposure(
        request, at_us, BASE_US, user, user, "champion", "champion", 1.0, False, None,
        degradation="full", item_ids=list(items), versions=versions, **fields,
    )  # fmt: skip


def log(
    home: Path, exposures: Sequence[Exposure] = (), events: Sequence[Event] = (), devices: dict[str, str] | None = None
) -> None:
    writer = ExposureLog(home)
    for exposure in exposures:
        writer.append(exposure)
    writer.close()
    contexts = ContextLog(home)
    for request, device in (devices or {}).items():
        contexts.append(
            ContextRecord(request, T_US, BASE_US, "u1", 3, {"device": device}, [], [], {}, [], [], "", "dcn", {})
        )
    contexts.close()
    store = EventStore(home)
    store.append([events])
    store.close()


def clicked(event_id: str, item: str, request: str | None = None, at_us: int = T_US + SECOND_US, **more: Any) -> Event:
    fields: dict[str, Any] = {"user_id": "u1", "event": "click"} | more
    return Event(event_id, item_id=item, timestamp_us=at_us, received_us=at_us, request_id=request, **fields)


def rows(folder: Path) -> list[dict[str, Any]]:
    return pq.read_table(folder / "interactions.parquet").to_pylist()


def test_slates_become_impressions_and_a_click_gets_its_position_from_its_slate(
    home: Path, world: Path, tmp_path: Path
) -> None:
    log(home, [shown(home, "r1", ["i3", "i1", "i5"])], [clicked("e1", "i1", "r1")], {"r1": "ios"})
    out = tmp_path / "out"
    done = export(home, out, items_from=world)
    assert (done.impressions, done.events, done.base, done.rejected, done.repeated) == (3, 1, 0, 0, 0)
    found = rows(out)
    assert [(r["item_id"], r["event"], r["position"], r["request_id"]) for r in found] == [
        ("i1", "impression", 2, "r1"),
        ("i3", "impression", 1, "r1"),
        ("i5", "impression", 3, "r1"),
        ("i1", "click", 2, "r1"),
    ]
    assert {r["device"] for r in found} == {"ios"}
    assert {int(r["timestamp"].timestamp()) * SECOND_US for r in found} == {T_US, T_US + SECOND_US}
    report = validate_folder(out)
    assert not report.rejected
    config = DatasetConfig.read(out)
    assert (config.clock, config.impression_event) == ("wall", "impression")


def test_hidden_users_are_named_again_where_the_keys_and_an_event_or_the_data_set_know_them(
    home: Path, world: Path, tmp_path: Path
) -> None:
    path = tmp_path / "users.json"
    for number, user in enumerate(("u1", "u2", "stranger")):  # two of them under keys that are no longer used
        rotate(path, number)
        writer = ExposureLog(home, hide=UserKeys(path).hide)
        writer.append(shown(home, f"r{number}", ["i3", "i1"], user=user))
        writer.close()
    log(home, events=[clicked("e1", "i1", "r0")])
    keys = UserKeys(path)
    assert export(home, tmp_path / "out", items_from=world, base=world, keys=keys).impressions == 6
    found = {(r["request_id"], r["user_id"]) for r in rows(tmp_path / "out") if r["request_id"]}
    assert found == {("r0", "u1"), ("r1", "u2"), ("r2", keys.hide("stranger"))}
    clicks = [r for r in rows(tmp_path / "out") if r["event"] == "click"]
    assert [(r["user_id"], r["position"]) for r in clicks] == [("u1", 2)]


def test_an_export_is_a_data_set_that_training_takes(home: Path, world: Path, tmp_path: Path) -> None:
    log(home, [shown(home, "r1", ["i3", "i1"])], [clicked("e1", "i1", "r1", event="purchase")])
    export(home, tmp_path / "out", items_from=world)
    assert take(tmp_path / "out", home).rows["interactions"] == 3
    # And that snapshot is the default for items from now on.
    assert export(home, tmp_path / "again").impressions == 2


def test_events_keep_their_own_position_value_and_context(home: Path, world: Path, tmp_path: Path) -> None:
    log(
        home,
        [shown(home, "r1", ["i3", "i1"])],
        [
            clicked("e1", "i1", "r1", position=9, context={"device": "tv"}),
            clicked("e2", "i2", None, event="purchase", value=4.5),
            clicked("e3", "i3", "r1", user_id="someone-else"),
        ],
        {"r1": "ios"},
    )
    export(home, tmp_path / "out", items_from=world)
    events = {r["item_id"]: r for r in rows(tmp_path / "out") if r["event"] != "impression"}
    assert (events["i1"]["position"], events["i1"]["device"]) == (9, "tv")
    assert (events["i2"]["position"], events["i2"]["value"], events["i2"]["device"]) == (None, 4.5, None)
    assert events["i3"]["position"] is None  # the slate was another user's


def test_unknown_items_are_rejects_and_repeats_are_left_out(home: Path, world: Path, tmp_path: Path) -> None:
    log(
        home,
        [
            shown(home, "r1", ["i3", "gone"]),
            shown(home, "r2", [], outcome="empty"),
            shown(home, "r3", ["i1"], outcome="error"),
        ],
        [
            clicked("e1", "nonsense"),
            clicked("e2", "i3", "r1", event="impression"),  # the exposure log has it
            clicked("e3", "i5", event="impression"),  # shown by something else
            clicked("e4", "i4"),
            clicked("e5", "i4"),  # another id, the same thing at the same moment
        ],
    )
    done = export(home, tmp_path / "out", items_from=world)
    assert (done.impressions, done.events, done.rejected, done.repeated) == (1, 2, 2, 2)
    rejects = pq.read_table(tmp_path / "out/rejects.parquet").to_pylist()
    assert {r["reason"] for r in rejects} == {"unknown_item"}
    assert {json.loads(r["record"])["item_id"] for r in rejects} == {"gone", "nonsense"}


def test_a_window_is_half_open_and_a_click_finds_a_slate_from_before_it(
    home: Path, world: Path, tmp_path: Path
) -> None:
    log(
        home,
        [shown(home, "r1", ["i3", "i1"]), shown(home, "r2", ["i2"], T_US + 10 * SECOND_US)],
        [clicked("e1", "i1", "r1", T_US + 5 * SECOND_US), clicked("e2", "i2", "r2", T_US + 11 * SECOND_US)],
    )
    done = export(
        home, tmp_path / "out", items_from=world, since_us=T_US + 5 * SECOND_US, until_us=T_US + 11 * SECOND_US
    )
    assert (done.impressions, done.events) == (1, 1)
    click = next(r for r in rows(tmp_path / "out") if r["event"] == "click")
    assert (click["item_id"], click["position"]) == ("i1", 2)


def test_after_a_base_that_has_ended_own_times_go_on_where_it_ended(home: Path, world: Path, tmp_path: Path) -> None:
    log(home, [shown(home, "r1", ["i3"]), shown(home, "r2", ["i2"], T_US + 60 * SECOND_US)])
    done = export(home, tmp_path / "out", base=world)
    assert (done.base, done.impressions) == (3, 2)
    times = [int(r["timestamp"].timestamp()) * SECOND_US for r in rows(tmp_path / "out")]
    assert times == [BASE_US + n * SECOND_US for n in (-2, -1, 0, 1, 61)]
    assert DatasetConfig.read(tmp_path / "out").clock == "log_end"
    # The window does not change the shift, and an export may be the base of the next.
    later = export(home, tmp_path / "later", base=tmp_path / "out", since_us=T_US + 30 * SECOND_US)
    assert later.shifted_us == done.shifted_us
    assert rows(tmp_path / "later") == rows(tmp_path / "out")


def test_a_click_becomes_a_positive_where_the_log_has_no_other(home: Path, world: Path, tmp_path: Path) -> None:
    log(home, [shown(home, "r1", ["i3"])], [clicked("e1", "i3", "r1")])
    assert export(home, tmp_path / "a", items_from=world).positives_added == ("click",)
    assert [p.event for p in DatasetConfig.read(tmp_path / "a").positives] == ["purchase", "click"]
    log(home, events=[clicked("e2", "i3", "r1", event="purchase")])
    assert export(home, tmp_path / "b", items_from=world).positives_added == ()


def test_nothing_logged_and_nothing_trained_are_errors_that_leave_nothing(
    home: Path, world: Path, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match="no exposure"):
        export(home, tmp_path / "out", items_from=world)
    with pytest.raises(NotFound, match="snapshot"):
        export(home, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_failure_half_way_leaves_the_old_export(
    home: Path, world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log(home, [shown(home, "r1", ["i3"])])
    export(home, tmp_path / "out", items_from=world)
    before = rows(tmp_path / "out")
    log(home, [shown(home, "r2", ["i3"])])

    def fail(*_: object, **__: object) -> None:
        raise DataError("no")

    monkeypatch.setattr(exporting, "validate_folder", fail)
    with pytest.raises(DataError):
        export(home, tmp_path / "out", items_from=world)
    assert rows(tmp_path / "out") == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["home", "out", "world"]


def test_the_configuration_survives_being_written(world: Path) -> None:
    config = DatasetConfig.read(world)
    assert DatasetConfig.model_validate(tomllib.loads(config_toml(config))) == config


def test_the_command_prints_one_document_and_rolls_the_log(home: Path, world: Path, tmp_path: Path) -> None:
    log(home, [shown(home, "r1", ["i3"])], [clicked("e1", "i3", "r1")])
    words = ["data", "export", str(tmp_path / "out"), "--items", str(world), "--home", str(home)]
    done = CliRunner().invoke(app, [*words, "--since", "2025-06-01", "--json"])
    assert done.exit_code == 0, done.output
    document = json.loads(done.stdout)
    assert (document["impressions"], document["events"]) == (1, 1)
    assert list((home / "log/exposures").glob("date=*/*.parquet"))
    assert CliRunner().invoke(app, [*words, "--since", "yesterday"]).exit_code == 2
    assert CliRunner().invoke(app, [*words, "--since", "2040-01-01"]).exit_code == 1


@pytest.mark.redis
def test_events_of_a_log_in_redis_are_exported_by_the_command(
    home: Path, world: Path, tmp_path: Path, durable_url: str
) -> None:
    log(home, [shown(home, "r1", ["i3", "i1"])], [clicked("embedded", "i3", "r1")])
    stream = RedisEventLog(durable_url)
    stream.append([[clicked("e1", "i1", "r1"), clicked("e2", "i2")]])
    stream.close()
    done = CliRunner().invoke(
        app,
        ["data", "export", str(tmp_path / "own"), "--items", str(world), "--home", str(home), "--json"],
        env={"STREAMREC_EVENT_LOG": durable_url},
    )
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["events"] == 2
    clicks = [(r["item_id"], r["position"]) for r in rows(tmp_path / "own") if r["event"] == "click"]
    assert sorted(clicks) == [("i1", 2), ("i2", None)]


def test_items_of_the_live_catalogue_are_laid_over_those_of_the_data_set(
    home: Path, world: Path, tmp_path: Path
) -> None:
    catalogue = CatalogueStore(home)
    now = T_US - 5 * SECOND_US
    catalogue.apply(
        [
            ItemChange("new", "put", now, ItemFacts("c", published_us=now - SECOND_US)),
            ItemChange("i1", "put", now, ItemFacts("changed")),
            ItemChange("gone", "put", now, ItemFacts("c")),
            ItemChange("gone", "remove", now),
            ItemChange("i2", "flag", now, flagged=True),
        ]
    )
    catalogue.close()
    log(home, [shown(home, "r1", ["new", "i1"])], [clicked("e1", "new", "r1"), clicked("e2", "never put")])
    done = export(home, tmp_path / "out", items_from=world)
    assert (done.impressions, done.events, done.rejected) == (2, 1, 1)
    items = {row["item_id"]: row for row in pq.read_table(tmp_path / "out" / "items.parquet").to_pylist()}
    assert items.keys() == {*ITEMS, "new", "gone"}
    assert [i for i, row in items.items() if row["is_flagged"]] == ["i2", "gone"]
    assert [items[i]["category"] for i in ("i0", "i1", "new")] == ["a", "changed", "c"]
    assert items["i1"]["published_at"].timestamp() == 0
    assert items["new"]["published_at"].timestamp() * SECOND_US == now - SECOND_US


def test_what_was_taken_down_live_is_flagged_in_the_export_where_the_data_set_has_flags(
    home: Path, world: Path, tmp_path: Path
) -> None:
    table = pq.read_table(world / "items.parquet")
    pq.write_table(table.append_column("is_flagged", pa.array([True] + [False] * 5)), world / "items.parquet")
    catalogue = CatalogueStore(home)
    catalogue.apply(
        [
            ItemChange("i0", "flag", 1, flagged=False),
            ItemChange("i1", "remove", 1),
            ItemChange("new", "put", T_US, ItemFacts("c")),
            ItemChange("gone", "put", T_US, ItemFacts("c")),
            ItemChange("gone", "flag", T_US, flagged=True),
        ]
    )
    catalogue.close()
    log(home, [shown(home, "r1", ["new"])])
    export(home, tmp_path / "out", items_from=world)
    items = pq.read_table(tmp_path / "out" / "items.parquet").to_pylist()
    assert {row["item_id"]: row["is_flagged"] for row in items} == {
        **dict.fromkeys(ITEMS, False),
        "i1": True,
        "new": False,
        "gone": True,
    }
