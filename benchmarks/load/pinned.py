"""A generator in a process of its own, on a core of its own."""

import subprocess
from collections.abc import Sequence
from pathlib import Path

from contracts.errors import StreamRecError

ROOT = Path(__file__).resolve().parents[2]


def output(command: Sequence[str], core: int | None) -> str:
    """What `command` prints.

    Raises:
        StreamRecError: it failed.
    """
    pinned = [] if core is None else ["taskset", "-c", str(core)]
    done = subprocess.run([*pinned, *command], capture_output=True, text=True, cwd=ROOT, check=False)
    if done.returncode:
        raise StreamRecError(f"{command[0]} ended with exit code {done.returncode}: {done.stderr[-500:]}")
    return done.stdout
