"""The logs and the columns that they have as Parquet."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import msgspec
import pyarrow as pa

from contracts.attempts import ATTEMPT_SCHEMA, Attempt
from contracts.errors import DataError
from contracts.exposures import CONTEXT_SCHEMA, EXPOSURE_SCHEMA, ContextRecord, Exposure, States, Versions

_STATES = {str: pa.string(), int: pa.int64()}
_fields = msgspec.structs.fields
_STATES_ROW = pa.struct([(f.name, _STATES.get(f.type, pa.list_(pa.string()))) for f in _fields(States)])


@dataclass(frozen=True, slots=True)
class LogKind:
    """One log. `name`: its folder under `log/`; `to_row`: a record as a row of `arrow`."""

    name: str
    type: type[msgspec.Struct]
    schema_version: int
    arrow: pa.Schema
    to_row: Callable[[Any], dict[str, Any]]
    oldest: int = 1  # schema that is read: later ones only add fields with defaults
    unpack: Callable[[Any], Any] | None = None  # what was written → what is read

    def decode(self, payload: bytes) -> Any:
        """
        Raises:
            DataError: a schema that this code does not know.
            msgspec.DecodeError: not a record of this kind.
        """
        schema = msgspec.msgpack.decode(payload, type=_SchemaOnly).schema
        if not self.oldest <= schema <= self.schema_version:
            raise DataError(
                f"{self.name} log: a record has schema {schema}, this version reads {self.schema_version}",
                next_command="read it with the version of streamrec that wrote it, or a newer one",
            )
        record = _decoder(self.type).decode(payload)
        return record if self.unpack is None else self.unpack(record)

    def table(self, records: Sequence[Any]) -> pa.Table:
        return pa.Table.from_pylist([self.to_row(r) for r in records], schema=self.arrow)


class _SchemaOnly(msgspec.Struct):
    schema: int


@cache
def _decoder(kind: type[msgspec.Struct]) -> msgspec.msgpack.Decoder[Any]:
    return msgspec.msgpack.Decoder(kind)


def _exposure_row(record: Exposure) -> dict[str, Any]:
    row = msgspec.structs.asdict(record)
    row["versions"] = msgspec.structs.asdict(record.versions)
    row["experiments"] = list(record.experiments.items())
    row["states"] = None if record.states is None else msgspec.structs.asdict(record.states)
    return row


def _context_row(record: ContextRecord) -> dict[str, Any]:
    row = msgspec.structs.asdict(record)
    row["context"] = list(record.context.items())
    row["features"] = [
        {"name": f.name, "value": json.dumps(f.value), "age_s": f.age_s, "source": f.source} for f in record.features
    ]
    row["candidates"] = list(record.candidates.items())
    row["shown"] = msgspec.structs.asdict(record.shown) if record.shown else None
    for name in ("stages_ms", "candidate_scores"):
        row[name] = list(row[name].items())
    for name in ("versions", "states"):
        part = getattr(record, name)
        row[name] = None if part is None else msgspec.structs.asdict(part)
    return row


def _unpacked(record: ContextRecord) -> ContextRecord:
    if record.packed is None:
        return record
    return msgspec.structs.replace(record, candidates=record.packed.unpacked(), packed=None)


def _attempt_row(record: Attempt) -> dict[str, Any]:
    row = msgspec.structs.asdict(record)
    row["context"] = list(record.context.items())
    row["compared"] = msgspec.structs.asdict(record.compared) if record.compared else None
    return row


def context_of_row(row: dict[str, Any]) -> ContextRecord:
    """The record back from a row of Parquet."""
    features = [f | {"value": json.loads(f["value"])} for f in row["features"]]
    maps = {name: dict(row[name] or ()) for name in ("context", "candidates", "stages_ms", "candidate_scores")}
    states = row["states"] and _there(row["states"])
    return msgspec.convert(_there(row | maps | {"features": features, "states": states}), ContextRecord)


def _there(fields: dict[str, Any]) -> dict[str, Any]:
    """A file of an earlier schema has nulls where a later one has fields."""
    return {name: value for name, value in fields.items() if value is not None}


EXPOSURES = LogKind(
    "exposures",
    Exposure,
    EXPOSURE_SCHEMA,
    pa.schema(
        [
            ("request_id", pa.string()),
            ("timestamp_us", pa.int64()),
            ("clock_us", pa.int64()),
            ("unit", pa.string()),
            ("user_id", pa.string()),
            ("assigned", pa.string()),
            ("served", pa.string()),
            ("probability", pa.float64()),
            ("exploration", pa.bool_()),
            ("slate_propensity", pa.float64()),
            ("outcome", pa.string()),
            ("degradation", pa.string()),
            ("item_ids", pa.list_(pa.string())),
            ("versions", pa.struct([(f, pa.string()) for f in Versions.__struct_fields__])),
            ("experiments", pa.map_(pa.string(), pa.string())),
            ("batch_age_s", pa.float64()),
            ("states", _STATES_ROW),
            ("schema", pa.int32()),
        ]
    ),
    _exposure_row,
)

CONTEXTS = LogKind(
    "contexts",
    ContextRecord,
    CONTEXT_SCHEMA,
    pa.schema(
        [
            ("request_id", pa.string()),
            ("timestamp_us", pa.int64()),
            ("clock_us", pa.int64()),
            ("user_id", pa.string()),
            ("k", pa.int32()),
            ("context", pa.map_(pa.string(), pa.string())),
            ("exclude", pa.list_(pa.string())),
            # A value is a number, a word, a list or a map: JSON, since a column has one type.
            (
                "features",
                pa.list_(
                    pa.struct(
                        [
                            ("name", pa.string()),
                            ("value", pa.string()),
                            ("age_s", pa.float64()),
                            ("source", pa.string()),
                        ]
                    )
                ),
            ),
            ("candidates", pa.map_(pa.string(), pa.list_(pa.string()))),
            ("top_item_ids", pa.list_(pa.string())),
            ("top_scores", pa.list_(pa.float64())),
            ("digest", pa.string()),
            ("ranked_by", pa.string()),
            ("stages_ms", pa.map_(pa.string(), pa.float64())),
            ("notes", pa.list_(pa.string())),
            (
                "shown",
                pa.struct(
                    [
                        ("item_ids", pa.list_(pa.string())),
                        ("categories", pa.list_(pa.string())),
                        ("scores", pa.list_(pa.float64())),
                        ("signature", pa.string()),
                        ("rows", pa.binary()),
                    ]
                ),
            ),
            ("schema", pa.int32()),
            ("aim", pa.string()),
            ("degradation", pa.string()),
            ("stale", pa.list_(pa.string())),
            ("last", pa.list_(pa.string())),
            ("lists", pa.string()),
            ("item_ids", pa.list_(pa.string())),
            ("scores", pa.list_(pa.float32())),
            ("versions", pa.struct([(f, pa.string()) for f in Versions.__struct_fields__])),
            ("states", _STATES_ROW),
            ("candidate_scores", pa.map_(pa.string(), pa.list_(pa.float32()))),
            ("ranked_item_ids", pa.list_(pa.string())),
            ("ranked_scores", pa.list_(pa.float32())),
        ]
    ),
    _context_row,
    unpack=_unpacked,
)

ATTEMPTS = LogKind(
    "attempts",
    Attempt,
    ATTEMPT_SCHEMA,
    pa.schema(
        [
            ("request_id", pa.string()),
            ("timestamp_us", pa.int64()),
            ("unit", pa.string()),
            ("user_id", pa.string()),
            ("variant", pa.string()),
            ("shadow", pa.bool_()),
            ("bento", pa.string()),
            ("release", pa.string()),
            ("step", pa.string()),
            ("outcome", pa.string()),
            ("status", pa.int32()),
            ("ms", pa.float64()),
            ("degradation", pa.string()),
            ("n_items", pa.int32()),
            ("k", pa.int32()),
            ("score_min", pa.float64()),
            ("score_max", pa.float64()),
            ("schema_ok", pa.bool_()),
            ("forced", pa.bool_()),
            ("context", pa.map_(pa.string(), pa.string())),
            ("panel", pa.list_(pa.string())),
            (
                "compared",
                pa.struct(
                    [
                        ("overlap", pa.float64()),
                        ("common", pa.int32()),
                        ("correlation", pa.float64()),
                        ("ms_served", pa.float64()),
                        ("shift", pa.float64()),
                    ]
                ),
            ),
            ("schema", pa.int32()),
        ]
    ),
    _attempt_row,
)

KINDS = (EXPOSURES, CONTEXTS, ATTEMPTS)
