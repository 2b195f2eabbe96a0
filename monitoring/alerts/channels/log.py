"""Alerts as lines of JSON in `home/log/alerts.jsonl`, each once, synced to the disk."""

import json
import os
from dataclasses import asdict
from pathlib import Path

from monitoring.alerts.channels.base import Message

FILE = Path("log") / "alerts.jsonl"
TAIL_BYTES = 1 << 20  # what is sent again was sent lately


class LogChannel:
    name = "log"

    def __init__(self, home: Path) -> None:
        self._path = home / FILE

    def send(self, message: Message) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("ab+") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - TAIL_BYTES))
            lines = file.read().splitlines(keepends=True)
            if any(_key(line) == message.key for line in lines):
                return
            if lines and not lines[-1].endswith(b"\n"):  # killed inside a line: it is no line, and told again now
                file.write(b"\n")
            file.write(json.dumps(asdict(message), allow_nan=False).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())


def read_alerts(home: Path) -> list[dict[str, object]]:
    """All that were told, oldest first."""
    path = home / FILE
    return [found for line in path.read_bytes().splitlines() if (found := _row(line))] if path.exists() else []


def _key(line: bytes) -> object:
    return _row(line).get("key")


def _row(line: bytes) -> dict[str, object]:
    try:
        row = json.loads(line)
    except ValueError:
        return {}
    return row if isinstance(row, dict) else {}
