"""How long work tells of itself. The pipeline wires this to a display; a library call is silent."""

from typing import Protocol


class Progress(Protocol):
    """Called with a stage's name, the units done and the units in all. Calls are cheap and may be frequent."""

    def __call__(self, stage: str, done: int, total: int) -> None: ...


def silent(stage: str, done: int, total: int) -> None:
    """The default: say nothing."""
