"""Where the consumer and its clients meet: files under `home/run`.

A Unix socket's path holds at most 107 bytes. Under a deeper home the socket lies in a private folder of the temporary
directory, and `events.address` says where.
"""

import hashlib
import os
import stat
import tempfile
from pathlib import Path

from contracts.errors import Unreachable

MAX_SOCKET_PATH = 103  # macOS; Linux has 107


def run_folder(home: Path) -> Path:
    folder = home / "run"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def lock_path(home: Path) -> Path:
    """Held by the one consumer of this home."""
    return home / "run" / "events.lock"


def output_path(home: Path) -> Path:
    """What the consumer printed."""
    return home / "run" / "consumer.log"


def _direct(home: Path) -> Path:
    return home.resolve() / "run" / "events.sock"


def _address_file(home: Path) -> Path:
    return home / "run" / "events.address"


def socket_to_bind(home: Path) -> Path:
    """Path for the consumer to listen on; for a deep home one in a private folder, whose place it records.

    Raises:
        Unreachable: the private folder belongs to someone else.
    """
    direct = _direct(home)
    if len(os.fsencode(direct)) <= MAX_SOCKET_PATH:
        _address_file(home).unlink(missing_ok=True)
        return direct
    folder = Path(tempfile.gettempdir()) / f"streamrec-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise Unreachable(
            f"{folder} is not private to this user, so the event socket cannot lie in it",
            next_command=f"chmod 700 {folder}, or set STREAMREC_HOME to a shorter path",
        )
    name = hashlib.sha256(os.fsencode(direct)).hexdigest()[:24]
    path = folder / f"{name}.sock"
    part = _address_file(home).with_suffix(".part")
    part.write_text(f"{path}\n")
    part.rename(_address_file(home))
    return path


def socket_to_connect(home: Path) -> Path | None:
    """Where the consumer listens, if it does; None for a deep home without a consumer so far."""
    direct = _direct(home)
    if len(os.fsencode(direct)) <= MAX_SOCKET_PATH:
        return direct
    try:
        return Path(_address_file(home).read_text().strip())
    except FileNotFoundError:
        return None
