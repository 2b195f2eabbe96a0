"""The service's own log as a data set: what was shown, what was done, ready for `train`.

- One `impression` row for each item of each slate, at the moment of the answer, with its position and request.
- Events as they came; a click that names its request gets the position from the slate when it does not say it.
  An impression that a client reports for something the exposure log has already is left out.
- Columns of interactions that the data set's models read (`device`) come from the event, else from the request's
  context record, where the sample has one.
- Items, users and `dataset.toml` come from the data set that the models were trained on; what the live catalogue says
  of items is laid over them.

Times are those of the wall clock, and so is the exported data set's `clock`. With `base` its log comes first; where
that log ended long ago (`clock = "log_end"`), own times are moved by one constant, so that the first own record falls
a second after the base's last one: the log goes on where it ended.
"""
# ruff: noqa: S608  SQL is made of our own and quoted names

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from bentos.telemetry.contexts import read_contexts
from bentos.telemetry.event_log import read_events
from bentos.telemetry.exposures import read_exposures
from contracts.dataset import INTERACTION_COLUMNS, INTERACTIONS, ITEMS, REJECTS, USERS, DatasetConfig, Positive
from contracts.errors import DataError, NotFound
from contracts.user_keys import UserKeys
from features.streaming import IMPRESSION
from training.data.contract import Checked, checked, validate_folder
from training.data.engine import quoted, text, write_query
from training.data.folder import ORIGIN, publish, write_config
from training.data.live_items import with_live_items
from training.data.snapshot import RECORD, SNAPSHOTS

# What answers an impression, where the data set knows only other wishes.
CLICK = "click"
_SHOWN_OUTCOME = "ok"
_OWN_COLUMNS = ("position", "request_id")


@dataclass(frozen=True, slots=True)
class Exported:
    """Rows written. impressions: from slates; events: sent by clients; base: of the base; rejected: of unknown items;
    repeated: client impressions and exact repeats left out; positives_added: events made positive; shifted_us: what
    was added to own times."""

    folder: Path
    impressions: int
    events: int
    base: int
    rejected: int
    repeated: int
    positives_added: tuple[str, ...]
    shifted_us: int


def newest_snapshot(home: Path) -> Path:
    """The data set that was trained on last.

    Raises:
        NotFound: nothing was trained in this home.
    """
    records = sorted((home / SNAPSHOTS).glob(f"*/{RECORD}"), key=lambda p: p.stat().st_mtime)
    if not records:
        raise NotFound(
            f"{home} has no data snapshot, so the items of the log are not known",
            next_command="streamrec data export OUT --items DIR, with the data set that the models were trained on",
        )
    return records[-1].parent


def export(
    home: Path,
    out: Path,
    *,
    items_from: Path | None = None,
    base: Path | None = None,
    since_us: int | None = None,
    until_us: int | None = None,
    event_log: str = "sqlite",
    keys: UserKeys | None = None,
) -> Exported:
    """Write own exposures and events with `since_us` ≤ time < `until_us` (wall clock) as the data set `out`.

    Args:
        items_from: data set that gives items, users and `dataset.toml`; default: `base`, else the newest snapshot.
        base: data set whose log comes first.
        event_log: as in the settings.
        keys: that hide users in the logs. Whoever sent an event or is in the data set is named again.

    Raises:
        NotFound: no such data set. DataError: nothing was logged in that time, or a log cannot be read.
        UsageError: `out` is in the way. Unreachable: the event store cannot be read.
    """
    source = items_from or base or newest_snapshot(home)
    with checked(source) as built:
        config = built.config
        db = built.connection
        extra = _context_columns(built)
        shift_us = _shift_us(home, base, config, event_log) if base else 0
        check = with_live_items(built, home, shift_us)
        _load_own(db, home, since_us, until_us, event_log)
        if keys:
            _name_users(built, keys)
        own = _create_own(db, config, extra, shift_us)
        if not own:
            raise DataError(
                f"{home} has no exposure and no event of a known item in that time",
                next_command="streamrec serve, and send recommendations and events to it; or another --since, --until",
            )
        config, added = _config(db, config, keep_clock=base is not None)
        origin: dict[str, Any] = {
            "made_by": "data export",
            "items_from": str(source),
            "base": str(base) if base else None,
            "since_us": since_us,
            "until_us": until_us,
            "shifted_us": shift_us,
        }
        with publish(out, origin) as partial:
            rows = _write(check, partial, own_columns=(*_OWN_COLUMNS, *extra), base=base)
            write_config(partial, config_toml(config))
            rejected = _write_rejects(db, partial / REJECTS)
            validate_folder(partial)
            count = dict(db.execute("SELECT kind, count(*) FROM own GROUP BY kind").fetchall())
            exported = Exported(
                folder=out,
                impressions=count.get("slate", 0),
                events=count.get("event", 0),
                base=rows - own,
                rejected=rejected,
                repeated=_repeated(db),
                positives_added=added,
                shifted_us=shift_us,
            )
            origin |= {"impressions": exported.impressions, "events": exported.events, "base_rows": exported.base}
    return exported


def _context_columns(check: Checked) -> tuple[str, ...]:
    """Columns of interactions that `dataset.toml` names: models read them, or results are cut by them."""
    config = check.config
    named = [a.column for a in config.features if a.table == "interactions"]
    elsewhere: set[str] = set()
    for table in ("items", "users"):
        if table in check.accepted:
            elsewhere |= {d[0] for d in check.connection.sql(f"{check.accepted[table]} LIMIT 0").description}
    named += [s for s in config.slices if s not in elsewhere]
    return tuple(dict.fromkeys(c for c in named if c not in (*INTERACTION_COLUMNS, *_OWN_COLUMNS)))


def _shift_us(home: Path, base: Path, config: DatasetConfig, event_log: str) -> int:
    """What to add to own times. It depends on the whole own log, not on the window: exports agree with one another."""
    if config.clock != "log_end":
        return 0
    if (base / ORIGIN).exists():
        before = json.loads((base / ORIGIN).read_text()).get("shifted_us")
        if before:  # the base is such an export itself: its rows and these must stay in step
            return int(before)
    own = read_exposures(home), read_events(home, event_log=event_log)
    firsts = [pc.min(table["timestamp_us"]).as_py() for table in own if len(table)]
    if not firsts:
        return 0
    with checked(base) as check:
        found = check.connection.execute(
            f"SELECT max(epoch_us(timestamp)) FROM ({check.accepted['interactions']})"
        ).fetchall()
    last = int(found[0][0] or 0)
    # Never ahead: a base that has own rows already ends later than the own log began, and needs no move.
    return min(last + 1_000_000 - int(min(firsts)), 0)


def _load_own(
    db: duckdb.DuckDBPyConnection, home: Path, since_us: int | None, until_us: int | None, event_log: str
) -> None:
    sent = read_events(home, since_us, until_us, event_log=event_log)
    db.register("exposures", read_exposures(home, since_us, until_us))
    db.register("sent", sent)
    # A click may follow an answer from before the window.
    db.register("contexts", read_contexts(home).select(["request_id", "context"]))
    shown = "exposures" if since_us is None else "all_exposures"
    if since_us is not None:
        db.register("all_exposures", read_exposures(home, None, until_us))
    for name, source in (("slates", "exposures"), ("shown", shown)):
        db.execute(
            f"CREATE TEMP TABLE {name} AS SELECT request_id, user_id, timestamp_us, unnest(item_ids) AS item_id, "
            f"unnest(range(1, len(item_ids) + 1))::INTEGER AS position FROM {source} WHERE outcome = ?",
            [_SHOWN_OUTCOME],
        )
    db.execute("CREATE TEMP TABLE asked AS SELECT request_id, any_value(context) AS context FROM contexts GROUP BY 1")


def _name_users(check: Checked, keys: UserKeys) -> None:
    """Slates of users who are known here are given their names back; of the others nothing but slates is there."""
    db = check.connection
    users = f"SELECT user_id FROM sent UNION SELECT user_id FROM ({check.accepted['interactions']})"
    known = keys.known(str(user) for (user,) in db.execute(users).fetchall())
    db.register("known_users", pa.table({"hidden": list(known), "name": list(known.values())}))
    for table in ("slates", "shown"):
        db.execute(f"UPDATE {table} SET user_id = k.name FROM known_users k WHERE user_id = k.hidden")
    db.unregister("known_users")


def _create_own(db: duckdb.DuckDBPyConnection, config: DatasetConfig, extra: Sequence[str], shift_us: int) -> int:
    """Table `own`: the rows to write, and table `unknown`: those of items that are in no catalogue."""
    impression = config.impression_event or IMPRESSION
    kinds = {a.column: a.kind for a in config.features if a.table == "interactions"}

    def column(name: str, value: str) -> str:
        return f"{f'try_cast({value} AS DOUBLE)' if kinds.get(name) == 'numeric' else value} AS {quoted(name)}"

    of_request = [column(c, f"asked.context[{text(c)}]") for c in extra]
    of_event = [column(c, f"coalesce(e.context[{text(c)}], asked.context[{text(c)}])") for c in extra]
    moment = "make_timestamptz({} + " + str(int(shift_us)) + ") AS timestamp"
    slates = ", ".join(
        [
            "'slate' AS kind, s.user_id, s.item_id",
            moment.format("s.timestamp_us"),
            f"{text(impression)} AS event, NULL::DOUBLE AS value, s.position, s.request_id",
            *of_request,
        ]
    )
    events = ", ".join(
        [
            "'event' AS kind, e.user_id, e.item_id",
            moment.format("e.timestamp_us"),
            "e.event, e.value, coalesce(e.position, s.position) AS position, e.request_id",
            *of_event,
        ]
    )
    db.execute(
        f"CREATE TEMP TABLE all_own AS "
        f"SELECT {slates} FROM slates s LEFT JOIN asked USING (request_id) UNION ALL "
        f"SELECT DISTINCT {events} FROM sent e "
        "LEFT JOIN shown s ON s.request_id = e.request_id AND s.item_id = e.item_id AND s.user_id = e.user_id "
        "LEFT JOIN asked ON asked.request_id = e.request_id "
        f"WHERE NOT (e.event IN ({text(impression)}, {text(IMPRESSION)}) AND s.request_id IS NOT NULL)"
    )
    known = "item_id IN (SELECT item_id FROM known_items)"
    db.execute(f"CREATE TEMP TABLE own AS FROM all_own WHERE {known}")
    db.execute(f"CREATE TEMP TABLE unknown AS FROM all_own WHERE NOT {known}")
    return _count(db, "own")


def _repeated(db: duckdb.DuckDBPyConnection) -> int:
    return _count(db, "sent") - _count(db, "all_own WHERE kind = 'event'")


def _config(
    db: duckdb.DuckDBPyConnection, config: DatasetConfig, *, keep_clock: bool
) -> tuple[DatasetConfig, tuple[str, ...]]:
    """`dataset.toml` of the export. Where no event of the log is a positive, a click is made one: else nothing could be
    learnt from the log of a service whose consumers report clicks on a data set of purchases."""
    changes: dict[str, Any] = {"impression_event": config.impression_event or IMPRESSION}
    if not keep_clock:
        changes["clock"] = "wall"
    happened = {row[0] for row in db.execute("SELECT DISTINCT event FROM own").fetchall()}
    added: tuple[str, ...] = ()
    if CLICK in happened and not happened & {p.event for p in config.positives}:
        changes["positives"] = (*config.positives, Positive(event=CLICK))
        added = (CLICK,)
    return config.model_copy(update=changes), added


def _write(check: Checked, partial: Path, *, own_columns: Sequence[str], base: Path | None) -> int:
    """Items, users and the log, which is sorted by time; returns the log's rows."""
    db = check.connection
    for name in (ITEMS, USERS):
        table = name.removesuffix(".parquet")
        if table in check.accepted:
            write_query(db, check.accepted[table], partial / name)
    rows = f"SELECT {', '.join(map(quoted, INTERACTION_COLUMNS))}, {', '.join(map(quoted, own_columns))} FROM own"
    if base:
        # The base's own check may be another than the one of the items.
        with checked(base) as other:
            write_query(other.connection, other.accepted["interactions"], partial / ".base.parquet")
        rows = f"SELECT * FROM read_parquet({text(str(partial / '.base.parquet'))}) UNION ALL BY NAME {rows}"
        # DISTINCT: a base that is an earlier export of this log may overlap the window.
        rows = f"SELECT DISTINCT * FROM ({rows}) WHERE item_id IN (SELECT item_id FROM known_items)"
    written = write_query(db, f"{rows} ORDER BY timestamp, user_id, item_id", partial / INTERACTIONS)
    (partial / ".base.parquet").unlink(missing_ok=True)
    return written


def _write_rejects(db: duckdb.DuckDBPyConnection, path: Path) -> int:
    count = _count(db, "unknown")
    if count:
        write_query(
            db,
            'SELECT \'interactions\' AS "table", row_number() OVER () - 1 AS "row", \'item_id\' AS "column", '
            "'unknown_item' AS reason, to_json(unknown)::VARCHAR AS record FROM unknown",
            path,
        )
    return count


def _count(db: duckdb.DuckDBPyConnection, table: str) -> int:
    return int(db.execute(f"SELECT count(*) FROM {table}").fetchall()[0][0])


def config_toml(config: DatasetConfig) -> str:
    """`dataset.toml` as text: scalars, then one table for each entry of a list of tables."""
    document = config.model_dump(mode="json", exclude_none=True)
    lines, tables = [], []
    for key, value in document.items():
        if isinstance(value, list) and value and isinstance(value[0], dict):
            for entry in value:
                tables += ["", f"[[{key}]]", *(f"{k} = {_toml(v)}" for k, v in entry.items())]
        else:
            lines.append(f"{key} = {_toml(value)}")
    return "\n".join([*lines, *tables]) + "\n"


def _toml(value: Any) -> str:
    """JSON's strings, numbers, booleans and lists are TOML's too."""
    return json.dumps(value)
