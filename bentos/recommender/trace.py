"""When each stage of one request began and ended."""

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Trace:
    """Spans in milliseconds since the request began. Stages may overlap; each is written by one thread."""

    def __init__(self) -> None:
        self._start = time.perf_counter()
        self.spans: dict[str, tuple[float, float]] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        began = time.perf_counter()
        try:
            yield
        finally:
            self.add(name, began, time.perf_counter())

    def add(self, name: str, began: float, ended: float) -> None:
        """`began`, `ended`: `time.perf_counter()` seconds."""
        self.spans[name] = ((began - self._start) * 1e3, (ended - self._start) * 1e3)

    @property
    def stages_ms(self) -> dict[str, float]:
        return {name: round(ended - began, 3) for name, (began, ended) in list(self.spans.items())}

    def moments(self) -> list[tuple[str, tuple[float, float]]]:
        """Name, began, ended of each stage, in `perf_counter` seconds."""
        start = self._start
        return [(name, (start + a / 1e3, start + b / 1e3)) for name, (a, b) in list(self.spans.items())]

    @property
    def elapsed_ms(self) -> float:
        return (time.perf_counter() - self._start) * 1e3
