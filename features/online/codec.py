"""Feature values as bytes. MessagePack throughout, embeddings as little-endian float32; never a pickle.

A value that cannot be read is treated as missing and counted by name in `corrupt`: one bad byte must not take a user's
answer away.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec
import numpy as np

from contracts.errors import DataError
from contracts.serving import EMBEDDING_DIM, HISTORY_LENGTH
from features.online.base import Interaction, ItemSnapshot, PrecomputedList, Stamped, UserState
from features.registry import REGISTRY
from features.resolve import LAST_10
from features.sessions import Session
from features.streaming import merge_last


class _StoredList(msgspec.Struct, frozen=True, array_like=True):
    item_ids: tuple[str, ...]
    scores: tuple[float, ...]
    snapshot: str
    model: str
    feature_time_us: int
    segment: str


class _StoredColumn(msgspec.Struct, frozen=True, array_like=True):
    shape: tuple[int, ...]
    data: bytes


class _StoredSnapshot(msgspec.Struct, frozen=True):
    version: str
    item_ids: list[str]
    columns: dict[str, _StoredColumn]
    timestamps_us: dict[str, int]


# TypeError: text where bytes belong, as a hand in a SQLite file may leave it.
_UNREADABLE = (ValueError, TypeError)

_encode = msgspec.msgpack.Encoder().encode
_decode_float = msgspec.msgpack.Decoder(float).decode
_decode_bytes = msgspec.msgpack.Decoder(bytes).decode
_decode_weights = msgspec.msgpack.Decoder(dict[str, float]).decode
_decode_interactions = msgspec.msgpack.Decoder(list[tuple[str, str, int]]).decode
_decode_sessions = msgspec.msgpack.Decoder(tuple[Session, ...]).decode
_decode_row = msgspec.msgpack.Decoder(dict[str, tuple[int, msgspec.Raw]]).decode
_decode_list = msgspec.msgpack.Decoder(_StoredList).decode
_decode_snapshot = msgspec.msgpack.Decoder(_StoredSnapshot).decode


def encode_value(name: str, value: Any) -> bytes:
    """
    Raises:
        NotFound: the registry has no such feature.
        DataError: the value is not of the feature's type.
    """
    dtype = REGISTRY[name].dtype
    try:
        match dtype:
            case "float":
                number = float(value)
                if not math.isfinite(number):
                    raise ValueError(f"{number} is not finite")
                return _encode(number)
            case "embedding":
                vector = np.ascontiguousarray(value, dtype="<f4")
                if vector.shape != (EMBEDDING_DIM,) or not np.isfinite(vector).all():
                    raise ValueError(f"shape {vector.shape} or a value that is not finite")
                return _encode(vector.tobytes())
            case "weights":
                return _encode({str(k): float(v) for k, v in value.items()})
            case "interactions":
                return encode_interactions(value)
    except (TypeError, ValueError, AttributeError) as error:
        raise DataError(f"feature {name} cannot hold {type(value).__name__}: {error}") from error


def decode_value(name: str, raw: bytes) -> Any:
    """
    Raises:
        ValueError: not a value of this feature (msgspec's decoding errors are ValueErrors).
    """
    match REGISTRY[name].dtype:
        case "float":
            number = _decode_float(raw)
            if not math.isfinite(number):
                raise ValueError("not finite")
            return number
        case "embedding":
            vector = np.frombuffer(_decode_bytes(raw), dtype="<f4")
            if vector.shape != (EMBEDDING_DIM,) or not np.isfinite(vector).all():
                raise ValueError("not an embedding")
            return vector
        case "weights":
            return _decode_weights(raw)
        case "interactions":
            return decode_interactions(raw)


def encode_interactions(rows: Iterable[Interaction]) -> bytes:
    return _encode([(i.item_id, i.event, i.timestamp_us) for i in rows])


def decode_interactions(raw: bytes) -> tuple[Interaction, ...]:
    """
    Raises:
        ValueError: not a list of interactions.
    """
    return tuple(Interaction(*row) for row in _decode_interactions(raw)[:HISTORY_LENGTH])


def encode_sessions(sessions: Iterable[Session]) -> bytes:
    return _encode(list(sessions))


def sessions_of(raw: bytes | None, corrupt: Counter[str]) -> tuple[Session, ...]:
    """Newest first; none where there are none or they cannot be read."""
    if raw is None:
        return ()
    try:
        return _decode_sessions(raw)
    except _UNREADABLE:
        corrupt["sessions"] += 1
        return ()


def encode_row(features: Mapping[str, tuple[int, bytes]]) -> bytes:
    """A user's features in one blob: name → (timestamp, encoded value)."""
    return _encode({name: (at, msgspec.Raw(raw)) for name, (at, raw) in features.items()})


def decode_row(blob: bytes, corrupt: Counter[str]) -> dict[str, tuple[int, bytes]]:
    try:
        return {name: (at, bytes(raw)) for name, (at, raw) in _decode_row(blob).items()}
    except _UNREADABLE:
        corrupt["user row"] += 1
        return {}


def merge_row(
    old: Mapping[str, tuple[int, bytes]], new: Mapping[str, tuple[int, bytes]]
) -> dict[str, tuple[int, bytes]]:
    """Feature by feature the later timestamp; at the same timestamp the new value."""
    return {**old, **{name: pair for name, pair in new.items() if name not in old or pair[0] >= old[name][0]}}


def encode_list(made: PrecomputedList) -> bytes:
    return _encode(
        _StoredList(made.item_ids, made.scores, made.snapshot, made.model, made.feature_time_us, made.segment)
    )


def decode_list(raw: bytes, corrupt: Counter[str]) -> PrecomputedList | None:
    try:
        s = _decode_list(raw)
    except _UNREADABLE:
        corrupt["precomputed list"] += 1
        return None
    if len(s.item_ids) != len(s.scores):
        corrupt["precomputed list"] += 1
        return None
    return PrecomputedList(s.item_ids, s.scores, s.snapshot, s.model, s.feature_time_us, s.segment)


def user_state(
    user_id: str,
    features: Mapping[str, tuple[int, bytes]],
    streamed: Sequence[Interaction],
    precomputed: bytes | None,
    watermark_us: int | None,
    corrupt: Counter[str],
    sessions: bytes | None = None,
) -> UserState:
    """Put the parts of one read together. Features that the registry does not know are of another version: left out."""
    batch: dict[str, Stamped] = {}
    last: tuple[Interaction, ...] = tuple(streamed)
    for name, (at, raw) in features.items():
        if name not in REGISTRY:
            continue
        try:
            value = decode_value(name, raw)
        except _UNREADABLE:
            corrupt[name] += 1
            continue
        if name == LAST_10:
            last = merge_last(last, value) if last else value
            watermark_us = at if watermark_us is None else max(watermark_us, at)
        else:
            batch[name] = Stamped(value, at)
    made = None if precomputed is None else decode_list(precomputed, corrupt)
    streamed_sessions = sessions_of(sessions, corrupt)
    return UserState(user_id, batch, last, made, watermark_us, streamed_sessions[0] if streamed_sessions else None)


def encode_snapshot(snapshot: ItemSnapshot) -> bytes:
    """
    Raises:
        DataError: a column whose length is not that of the items.
    """
    columns = {}
    for name, column in snapshot.columns.items():
        array = np.ascontiguousarray(column, dtype="<f4")
        if array.shape[0] != len(snapshot.item_ids):
            raise DataError(f"item feature {name} has {array.shape[0]} values for {len(snapshot.item_ids)} items")
        columns[name] = _StoredColumn(array.shape, array.tobytes())
    return _encode(_StoredSnapshot(snapshot.version, list(snapshot.item_ids), columns, dict(snapshot.timestamps_us)))


def decode_snapshot(blob: bytes, corrupt: Counter[str]) -> ItemSnapshot | None:
    try:
        stored = _decode_snapshot(blob)
        columns = {name: np.frombuffer(c.data, dtype="<f4").reshape(c.shape) for name, c in stored.columns.items()}
    except _UNREADABLE:
        corrupt["item snapshot"] += 1
        return None
    if any(c.shape[0] != len(stored.item_ids) for c in columns.values()):
        corrupt["item snapshot"] += 1
        return None
    return ItemSnapshot(stored.version, stored.item_ids, columns, stored.timestamps_us)
