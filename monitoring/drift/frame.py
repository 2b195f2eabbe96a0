"""Reads the frames that drift is looked for in: a Parquet file, or a folder of them.

What cannot be read becomes a reason, not an error: the run goes on with the rest.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from contracts.errors import NotFound

HASH = "feature_hash"
STATISTICS = "statistics.json"  # beside the rows of a model version's reference
ORIGIN, SLATE = "origin", "slate"


@dataclass(frozen=True, slots=True)
class Frame:
    """table: None where nothing could be read, for the reason `why`. notes: what was left out.

    feature_hash: of the definitions that its features were computed by, where the file says so.
    """

    table: pa.Table | None
    why: str = ""
    notes: tuple[str, ...] = ()
    feature_hash: str | None = None


def read_frame(path: Path) -> Frame:
    """Raises NotFound: there is no such file or folder. Whatever is in it is a reason."""
    if not path.exists():
        raise NotFound(f"no frame at {path}", next_command="streamrec monitor drift --help")
    files = sorted(path.rglob("*.parquet")) if path.is_dir() else [path]
    tables, notes, hashes = [], [], set()
    for file in files:
        try:
            table = pq.ParquetFile(file).read()
        except (OSError, pa.ArrowException, ValueError) as error:
            notes.append(f"{file.name} cannot be read: {_first_line(error)}")
            continue
        tables.append(table)
        hashes |= {h for h in (*_hashes_of(table), _hash_beside(file)) if h}
    if not tables:
        return Frame(None, "; ".join(notes) or f"{path.name} holds no Parquet file", tuple(notes))
    if len(hashes) > 1:
        return Frame(
            None, f"features of several definitions: {', '.join(sorted(h[:12] for h in hashes))}", tuple(notes)
        )
    try:
        whole = pa.concat_tables(tables, promote_options="permissive")
    except pa.ArrowException as error:
        return Frame(None, f"its files do not fit one another: {_first_line(error)}", tuple(notes))
    return Frame(_shown(whole), "", tuple(notes), next(iter(hashes), None))


def _hashes_of(table: pa.Table) -> list[str]:
    """From the file's metadata, or a column that says it row by row: of rows of several definitions, each."""
    said = (table.schema.metadata or {}).get(HASH.encode())
    if said:
        return [str(said.decode(errors="replace"))]
    return [str(v) for v in pc.unique(table[HASH]).to_pylist() if v] if HASH in table.column_names else []


def _hash_beside(file: Path) -> str | None:
    try:
        said: Any = json.loads((file.parent / STATISTICS).read_bytes())
    except (OSError, ValueError):
        return None
    return said.get(HASH) if isinstance(said, dict) else None


def _shown(table: pa.Table) -> pa.Table:
    """Of a training's rows those of slates: they compare with what was served."""
    if ORIGIN not in table.column_names:
        return table
    slates = pc.equal(table[ORIGIN], SLATE)
    return table.filter(slates) if pc.any(slates).as_py() else table


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
