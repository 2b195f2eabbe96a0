"""Retrieval fits side by side: each is one process with one thread, so that the figures do not depend on the cores."""

import multiprocessing
import os
import shutil
import tempfile
import threading
from collections.abc import Iterable
from concurrent.futures import Future, ProcessPoolExecutor
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import TracebackType
from typing import Self

from contracts.dataset import DatasetConfig
from contracts.memory import give_back_free_memory
from contracts.parent import end_with_parent
from features.offline.items import item_features_as_of
from features.ranking import row_schema
from features.registry import REGISTRY
from registry.artifacts import Bundle, open_bundle
from training import parallel
from training.progress import Progress, silent
from training.retrieval import RetrievalConfig, fit_retrieval

AT_ONCE = min(2, os.cpu_count() or 1)  # each holds the log: about 1 GB at 600,000 events


class Fitter:
    """Fits retrieval models on the rows before a moment, ahead of when they are asked for.

    A context manager: leaving it ends the processes and removes what was not asked for.
    """

    def __init__(
        self,
        folder: Path,
        config: DatasetConfig,
        seed: int,
        retrieval: RetrievalConfig,
        progress: Progress = silent,
        *,
        at_once: int = AT_ONCE,
    ) -> None:
        self._job = (folder, config, seed, retrieval)
        self._progress = progress
        self._at_once = at_once
        self._ahead: dict[int, Future[None]] = {}
        self._processes: list[BaseProcess] = []

    def __enter__(self) -> Self:
        self._staging = Path(tempfile.mkdtemp(prefix="streamrec-fit-"))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for future in self._ahead.values():
            future.cancel()
        for process in self._processes:
            if error is not None:  # no public way to stop work that nobody wants
                process.terminate()
            process.join()
        shutil.rmtree(self._staging, ignore_errors=True)

    def ahead(self, moments_us: Iterable[int]) -> None:
        """Start on these moments, in this order. With one core, or one moment, they wait until they are asked for."""
        wanted = list(dict.fromkeys(moments_us))
        if parallel.started():  # all processes take part in each fit instead
            return
        if self._at_once < 2 or len(wanted) < 2 or threading.current_thread() is not threading.main_thread():
            return
        context = multiprocessing.get_context("spawn")
        pool = ProcessPoolExecutor(self._at_once, context, initializer=end_with_parent, initargs=(os.getpid(),))
        for moment_us in wanted:
            self._ahead[moment_us] = pool.submit(_fit, *self._job, moment_us, self._staging / str(moment_us))
        self._processes = list(pool._processes.values())
        pool.shutdown(wait=False)  # once all is fitted they end: each holds a gigabyte that the rankers need
        self._progress("retrieval models", 0, len(wanted))

    def __call__(self, until_us: int, out: Path) -> Bundle:
        """The bundle as of `until_us`, in `out`.

        Raises:
            DataError: nothing to learn from before that moment.
        """
        future = self._ahead.get(until_us)
        if future is None:
            _fit(*self._job, until_us, out, self._progress)
            return open_bundle(out, "retrieval")
        future.result()
        self._progress("retrieval models", sum(f.done() for f in self._ahead.values()), len(self._ahead))
        out.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(self._staging / str(until_us), out)
        return open_bundle(out, "retrieval")


def _fit(
    folder: Path,
    config: DatasetConfig,
    seed: int,
    retrieval: RetrievalConfig,
    until_us: int,
    out: Path,
    progress: Progress = silent,
) -> None:
    fit_retrieval(
        folder,
        config,
        until_us,
        seed,
        out,
        progress,
        retrieval=retrieval,
        item_features=item_features_as_of(folder, until_us),
        feature_hash=REGISTRY.hash,
        signature=row_schema().signature,
    )
    give_back_free_memory()  # half a gigabyte at 600,000 events, beside rankers that need it
