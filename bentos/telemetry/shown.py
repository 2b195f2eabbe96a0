"""What was shown: exposures by item and hour, from the segments that are rolled to the counts of an online store.

    log/exposures/.shown/<segment>.counts

Rolling a segment writes such a file beside its Parquet ones; the consumer has it counted and removes it. The store
remembers the segment, so whatever is killed in between, a segment counts once. Nobody has to send impressions.
"""

from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from features.item_counts import HOUR_US, KEEP_HOURS

if TYPE_CHECKING:
    import pyarrow as pa

FOLDER = ".shown"
_LOG = "exposures"
# Rows counted in one transaction, so that events do not wait for it.
_PART = 5_000
_SHOWN = "ok"

Row = tuple[int, str, int]  # hour since 1970, item id, how often
_decode = msgspec.msgpack.Decoder(list[Row]).decode


def write_shown(folder: Path, segment: str, exposures: "pa.Table") -> None:
    """
    Args:
        folder: of the log. exposures: of the segment.
    """
    rows = _rows(exposures)
    if rows:
        target = folder / FOLDER / f"{segment}.counts"
        target.parent.mkdir(exist_ok=True)
        part = target.with_suffix(".part")
        part.write_bytes(msgspec.msgpack.encode(rows))
        part.rename(target)


def count_shown(home: Path, add: Callable[[str, Mapping[tuple[int, str], int]], bool], now_us: int) -> None:
    """Have every file counted by `add` (`OnlineStore.add_shown`).

    Raises:
        Unreachable: from `add`; what is left is for the next time.
    """
    oldest = now_us // HOUR_US - KEEP_HOURS
    for path in sorted((home / "log" / _LOG / FOLDER).glob("*.counts")):
        try:
            rows = iter(_decode(path.read_bytes()))
        except FileNotFoundError:
            continue
        except msgspec.DecodeError:  # of a power cut: a summary, whose records are all there
            rows = iter([])
        for number, part in enumerate(_parts(rows)):
            hours = {(hour, item_id): n for hour, item_id, n in part if hour >= oldest}
            if hours:
                add(f"{path.stem}:{number}", hours)
        path.unlink(missing_ok=True)


def _rows(exposures: "pa.Table") -> list[Row]:
    """Sorted: a segment that is rolled again gives the same parts."""
    import pyarrow as pa  # for who rolls: the consumer reads these files without it
    import pyarrow.compute as pc

    made = exposures.filter(pc.equal(exposures["outcome"], _SHOWN))
    items = made["item_ids"].combine_chunks()
    hours = pc.divide(made["timestamp_us"], HOUR_US).combine_chunks()
    flat = pa.table({"hour": hours.take(pc.list_parent_indices(items)), "item": pc.list_flatten(items)})
    counted = flat.group_by(["hour", "item"]).aggregate([([], "count_all")])
    return sorted(zip(*(counted[name].to_pylist() for name in ("hour", "item", "count_all")), strict=True))


def _parts(rows: Iterator[Row]) -> Iterator[list[Row]]:
    while part := list(islice(rows, _PART)):
        yield part
