"""What the stack of one home is made of, as values. `arbiter.py` runs it, `stack.py` talks to it."""

from pathlib import Path
from typing import Any

import msgspec


class Process(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One kind of process. argv[0]: a path. `{fd}` in argv: the listening socket, for those that the stack starts with.
    stop_s: between SIGTERM and SIGKILL."""

    name: str
    argv: tuple[str, ...]
    cwd: str
    log: str
    env: dict[str, str] = {}  # all of it
    count: int = 1
    stop_s: float = 15.0


class Plan(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """endpoint, events: of the arbiter, `ipc://` in a folder that is ours alone. host, port: what `{fd}` listens on."""

    endpoint: str
    events: str
    state: str  # the file that says what runs
    host: str
    port: int
    processes: tuple[Process, ...] = ()


class Running(msgspec.Struct, frozen=True):
    """What is known of one kind of process. again_in_s: back-off before the next start."""

    pids: tuple[int, ...]
    wanted: int
    deaths: int  # within the last minute
    last_exit: int | None = None
    again_in_s: float = 0.0


class State(msgspec.Struct, frozen=True):
    arbiter: int
    url: str
    at_us: int
    processes: dict[str, Running]


def read_state(path: Path) -> State | None:
    """None where nothing has been started, or the file is of another version."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=State)
    except (FileNotFoundError, msgspec.DecodeError):
        return None


def options(process: Process, parent: int, child: Path, python: str) -> dict[str, Any]:
    """As the arbiter's `add` command takes it: everything but name and cmd."""
    words = ["-I", str(child), str(parent), process.log, "--", *process.argv]
    inherits = {"use_sockets": True} if any("{fd}" in word for word in process.argv) else {}
    return {
        "cmd": python,
        "args": [word.replace("{fd}", "$(circus.sockets.front)") for word in words],
        "options": {
            "numprocesses": process.count,
            "working_dir": process.cwd,
            "env": process.env,
            "graceful_timeout": process.stop_s,
            "respawn": False,  # the arbiter starts it again itself, with back-off
            "max_retry": 1,
            **inherits,  # circus takes it at the start only, not with `add`
        },
    }
