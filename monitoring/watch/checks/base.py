"""What a check is given. A check returns its signals, or raises: then the watch says `inconclusive` in its place."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from contracts.settings import Settings
from monitoring.signals import Signal
from monitoring.watch.schema import Schema


@dataclass(frozen=True, slots=True)
class Asked:
    """bento: whose signals are wanted; "" of the service as a whole. runs: of the retraining history, oldest first."""

    settings: Settings
    schema: Schema
    bento: str
    now_us: int
    runs: Sequence[Mapping[str, object]] = ()


Check = Callable[[Asked], list[Signal]]
