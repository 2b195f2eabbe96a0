"""What the logs have of one request, and the user's state as a store would give it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from bentos.telemetry.contexts import find_context
from bentos.telemetry.exposures import read_exposures
from contracts.errors import NotFound
from contracts.exposures import ContextRecord, FeatureUsed
from contracts.serving import EMBEDDING_DIM
from features.online.base import Interaction, Stamped, UserState
from features.registry import REGISTRY
from features.resolve import LAST_10

# A vector leaves its checksum in the record, as no stage reads it: any vector stands in for it.
ANY_VECTOR = np.zeros(EMBEDDING_DIM, np.float32)


@dataclass(frozen=True, slots=True)
class Logged:
    """context None: sampled out, dropped, or of a gateway's own answer. exposure: as a row; None: not in this home."""

    request_id: str
    context: ContextRecord | None
    exposure: dict[str, Any] | None


def logged(home: Path, request_id: str) -> Logged:
    """
    Raises:
        NotFound: no log under this home has the request.
        DataError: its record has a schema that this code does not know.
    """
    context = find_context(home, request_id)
    exposure = None
    if context is None:
        exposure = _exposure(read_exposures(home), request_id)
        if exposure is None:
            raise NotFound(
                f"no log under {home} has request {request_id}",
                next_command="set STREAMREC_HOME to the home of the service that answered it",
            )
    return Logged(request_id, context, exposure)


def user_state(record: ContextRecord) -> UserState:
    """What `features.resolve` makes the same features of, at `record.clock_us`."""
    batch: dict[str, Stamped] = {}
    last: tuple[Interaction, ...] = ()
    watermark_us = None
    for used in record.features:
        definition = REGISTRY[used.name]
        if definition.entity != "user" or used.age_s is None:
            continue
        stamp = record.clock_us - round(used.age_s * 1e6)
        if used.name == LAST_10:
            # Where they were too old to be a feature, the record has them apart: they are not shown again.
            last, watermark_us = _interactions(used.value if used.source == "store" else record.last), stamp
        else:
            batch[used.name] = Stamped(_value(used, definition.dtype), stamp)
    return UserState(record.user_id, batch, last, None, watermark_us)


def _value(used: FeatureUsed, dtype: str) -> Any:
    if dtype == "embedding":
        return ANY_VECTOR
    return np.nan if used.value is None else used.value


def _interactions(words: Any) -> tuple[Interaction, ...]:
    parts = (word.split("\t") for word in words)
    return tuple(Interaction(item_id, event, int(moment)) for item_id, event, moment in parts)


def _exposure(exposures: pa.Table, request_id: str) -> dict[str, Any] | None:
    import pyarrow.compute as pc

    rows = exposures.filter(pc.equal(exposures["request_id"], request_id)).slice(0, 1).to_pylist()
    return rows[0] if rows else None
