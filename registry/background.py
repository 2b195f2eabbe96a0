"""Evidence beside the controller: reading logs may take seconds, and a command must not wait for it."""

import threading
import time
from collections.abc import Callable

from contracts.measurements import Snapshot
from registry.releases.values import Release

LATE_S = 30.0


class Background:
    """`source` in a thread, one look at a time. Returns at once: the look that has ended since, or None.

    Args:
        late_s: a look that takes longer is reported as evidence that cannot be had, and waited for all the same.
    """

    def __init__(self, source: Callable[[Release, int], Snapshot | None], *, late_s: float = LATE_S) -> None:
        self._source = source
        self._late_s = late_s
        self._look: _Look | None = None

    def __call__(self, release: Release, now_us: int) -> Snapshot | None:
        """
        Raises:
            Exception: whatever the source raised.
        """
        look = self._look
        if look is None:
            self._look = _Look(self._source, release, now_us)
            return None
        if look.running:
            took = time.monotonic() - look.began
            if took < self._late_s:
                return None
            problem = f"evidence takes over {self._late_s:g} s (so far {took:.0f} s)"
            return Snapshot(
                release=release.id, step=release.step, taken_us=now_us, since_us=release.since_us, problem=problem
            )
        self._look = None
        if look.error is not None:
            raise look.error
        return look.snapshot


class _Look:
    def __init__(self, source: Callable[[Release, int], Snapshot | None], release: Release, now_us: int) -> None:
        self.began = time.monotonic()
        self.snapshot: Snapshot | None = None
        self.error: Exception | None = None
        self._thread = threading.Thread(target=self._run, args=(source, release, now_us), name="evidence", daemon=True)
        self._thread.start()

    @property
    def running(self) -> bool:
        return self._thread.is_alive()

    def _run(self, source: Callable[[Release, int], Snapshot | None], release: Release, now_us: int) -> None:
        try:
            self.snapshot = source(release, now_us)
        except Exception as error:  # handed on to the caller
            self.error = error
