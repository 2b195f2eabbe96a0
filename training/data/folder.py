"""A data-set folder comes to be in one step: written under a temporary name beside its place, then renamed."""

import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from contracts.errors import DataError, UsageError

ORIGIN = "origin.json"


def write_config(folder: Path, text: str) -> None:
    """Write `dataset.toml`."""
    (folder / "dataset.toml").write_text(text)


def may_replace(out: Path) -> bool:
    """True for nothing, an empty folder, or a folder that one of our commands made (it has `origin.json`)."""
    if not os.path.lexists(out):
        return True
    return out.is_dir() and ((out / ORIGIN).is_file() or not any(out.iterdir()))


@contextmanager
def publish(out: Path, origin: dict[str, Any]) -> Iterator[Path]:
    """Give a temporary folder beside `out`; when the block ends well, it becomes `out`, with `origin` as `origin.json`.

    A killed run leaves at most a hidden `.NAME.partial-PID` folder, which the next run removes.

    Raises:
        UsageError: `out` holds something that no command of ours made, or its parent cannot be written.
    """
    out = Path(os.path.abspath(out))
    if out.is_symlink() and out.exists():
        out = out.resolve()
    if not may_replace(out):
        raise UsageError(
            f"{out} exists and is not a data set that this command made",
            next_command="choose another folder, or remove that one yourself",
        )
    partial = out.parent / f".{out.name}.partial-{os.getpid()}"
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        _remove_left_overs(out)
        partial.mkdir()
    except OSError as error:
        raise UsageError(f"cannot write beside {out}: {error.strerror or error}") from error
    try:
        yield partial
        (partial / ORIGIN).write_text(json.dumps(origin, indent=2) + "\n")
        _swap(partial, out)
    except OSError as error:
        if error.errno in _DISK_ERRORS:
            raise DataError(f"writing {out} failed: {error.strerror}; nothing was left behind") from error
        raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)


_DISK_ERRORS = frozenset({5, 28, 30, 122})  # EIO, ENOSPC, EROFS, EDQUOT


def _swap(partial: Path, out: Path) -> None:
    """Between the two renames there is no `out`; a kill there leaves the new data in nothing but the next run's way."""
    old = out.parent / f".{out.name}.old-{os.getpid()}"
    try:
        if out.exists():
            out.rename(old)
        partial.rename(out)
    except OSError as error:
        raise UsageError(f"{out} changed while it was being written; is another run writing it too?") from error
    finally:
        shutil.rmtree(old, ignore_errors=True)


def _remove_left_overs(out: Path) -> None:
    """Remove `partial` and `old` folders of runs that are no more."""
    pattern = re.compile(re.escape(f".{out.name}.") + r"(?:partial|old)-(\d+)")
    for path in out.parent.iterdir():
        match = pattern.fullmatch(path.name)
        if match and (int(match[1]) == os.getpid() or not alive(int(match[1]))):
            shutil.rmtree(path, ignore_errors=True)


def alive(pid: int) -> bool:
    """Whether a process of that number runs, ours or another's."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True
