"""Ids of users as the service's own logs have them: as they are or, where a file of keys is given, hidden by HMAC.

    {"keys": [{"id": "k1", "secret": "64 hex digits", "since_us": 0}, {"id": "k2", …}]}

A hidden id is `k2.` and 128 bits of HMAC-SHA-256 (RFC 2104) under that key: the same user has the same one as long as
the key is used, and whoever has the logs without the file can neither read an id nor try names. The last key hides;
earlier ones stay, so that what they hid can be found and erased. Running processes take a new key within `LOOK_S`.
"""

import base64
import hmac
import os
import secrets
import stat
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec

from contracts.errors import NotFound, UsageError

LOOK_S = 1.0
_BYTES = 16
_MADE = "streamrec monitor keys rotate"


class UserKey(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    id: str
    secret: str
    since_us: int  # wall clock: hides from then on

    def hide(self, user_id: str) -> str:
        digest = hmac.digest(bytes.fromhex(self.secret), user_id.encode(), "sha256")[:_BYTES]
        return f"{self.id}.{base64.b32encode(digest).decode().rstrip('=').lower()}"

    def __repr__(self) -> str:  # the secret is for no log
        return f"UserKey({self.id!r})"


class _Document(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    keys: list[UserKey]


class UserKeys:
    """The file is read again when it has changed; one that cannot be read then leaves the keys as they were."""

    def __init__(self, path: Path) -> None:
        """
        Raises:
            NotFound: no such file. UsageError: others may read it, or it holds no keys.
        """
        self._path = path
        self._keys = read_keys(path)
        self._stamp = _stamp(path)
        self._looked = time.monotonic()

    @classmethod
    def of(cls, path: Path | None) -> "UserKeys | None":
        return cls(path) if path else None

    @property
    def ids(self) -> list[str]:
        return [key.id for key in self._keys]

    def hide(self, user_id: str) -> str:
        """Under the key of now. Thread-safe."""
        now = time.monotonic()
        if now - self._looked >= LOOK_S:
            self._looked = now
            self._look()
        return self._keys[-1].hide(user_id)

    def at(self, moment_us: int) -> UserKey:
        """The key that hid at that moment."""
        return next((key for key in reversed(self._keys) if key.since_us <= moment_us), self._keys[0])

    def every(self, user_id: str) -> list[str]:
        """All that the user may be called in a log: by name, and under each key there ever was."""
        return [user_id, *(key.hide(user_id) for key in self._keys)]

    def known(self, users: Iterable[str]) -> Mapping[str, str]:
        """Hidden id → user, of these users, under every key: who is none of them stays hidden."""
        return {key.hide(user): user for user in users for key in self._keys}

    def _look(self) -> None:
        stamp = _stamp(self._path)
        if stamp != self._stamp:
            try:
                self._keys, self._stamp = read_keys(self._path), stamp
            except (NotFound, UsageError):
                return  # hidden under the old key, rather than not at all


def read_keys(path: Path) -> list[UserKey]:
    """
    Raises:
        NotFound: no such file. UsageError: others may read it, or it holds no keys.
    """
    try:
        if stat.S_IMODE(path.stat().st_mode) & 0o077:
            raise UsageError(f"{path} may be read by others", next_command=f"chmod 600 {path}")
        keys = msgspec.json.decode(path.read_bytes(), type=_Document).keys
        if not keys or len({key.id for key in keys}) < len(keys):
            raise ValueError("no keys, or two of one id")
        if any(len(bytes.fromhex(key.secret)) < _BYTES or "." in key.id or not key.id for key in keys):
            raise ValueError("a key of fewer than 32 hex digits, or an id with a dot")
    except FileNotFoundError as error:
        raise NotFound(f"there is no file of user keys at {path}", next_command=_MADE) from error
    except (OSError, ValueError, msgspec.DecodeError) as error:  # their words may quote the secret
        raise UsageError(f"{path} is no file of user keys ({type(error).__name__})", next_command=_MADE) from None
    return keys


def rotate(path: Path, now_us: int) -> UserKey:
    """A further key, from `now_us` on; the first one makes the file. In one step: nobody reads half of it.

    Raises:
        UsageError: what is there is no file of keys.
    """
    keys = read_keys(path) if path.exists() else []
    new = UserKey(f"k{len(keys) + 1}", secrets.token_hex(32), now_us if keys else 0)
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    part = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(msgspec.json.format(msgspec.json.encode(_Document([*keys, new]))))
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
    return new


def _stamp(path: Path) -> tuple[int, int]:
    try:
        found = path.stat()
    except OSError:
        return 0, 0
    return found.st_mtime_ns, found.st_ino
