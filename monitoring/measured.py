"""The figures that `monitor cost` prices, as this home has them: looks of the watch, logs on the disk, processes."""

from pathlib import Path

import psutil
import pyarrow.parquet as pq

from bentos.telemetry.exposures import read_exposures
from bentos.telemetry.kinds import CONTEXTS, EXPOSURES, LogKind
from bentos.telemetry.roll import log_folder, parquet_files
from contracts.settings import Settings
from monitoring.cost import Measured, Sample
from monitoring.watch.schema import Schema
from monitoring.watch.state import WatchState
from registry.processes.stack import Stack

DAY_US = 86_400_000_000
SERVING = ("gateway", "bento-", "consumer")
# Columns of a context that only a sample has.
ROWS, CANDIDATES = ("shown",), ("candidate_scores", "ranked_item_ids", "ranked_scores")


def measured(
    settings: Settings,
    schema: Schema,
    state: WatchState,
    now_us: int,
    *,
    kept_days: float,
    context_cpu_s: float | None,
    full_context_cpu_s: float | None = None,
) -> Measured:
    """Raises DataError, OSError: a log cannot be read."""
    seen = read_exposures(settings.home, now_us - DAY_US, now_us)["timestamp_us"].to_numpy()
    began_us, cpu_s = _serving(settings.home)
    answered = int((seen >= began_us).sum()) if began_us is not None else 0
    span_us = max(now_us - int(seen.min()), 60_000_000) if len(seen) else 0
    checks: dict[str, tuple[float, int, float]] = {}
    for name, minutes in schema.every_minutes().items():
        looks = [look for key, look in state.looks.items() if key.partition("|")[0] == name]
        n, spent = sum(look.runs for look in looks), sum(look.cpu_all_s for look in looks)
        if name != "watch":
            checks[name] = (round(spent / n, 3) if n else 0.0, n, minutes)
    sample = Sample(settings.log_contexts, settings.log_rows, settings.log_candidates)
    rows = _bytes_a_record(settings.home, CONTEXTS, ROWS)
    candidates = _bytes_a_record(settings.home, CONTEXTS, CANDIDATES)
    whole = _bytes_a_record(settings.home, CONTEXTS)
    return Measured(
        checks=checks,
        requests_a_day=round(len(seen) * DAY_US / min(span_us, DAY_US), 1) if span_us else None,
        exposure_bytes=_bytes_a_record(settings.home, EXPOSURES),
        context_bytes=None if whole is None else round(whole - (rows or 0.0) - (candidates or 0.0), 1),
        rows_bytes=_of_those(rows, sample.rows),
        candidates_bytes=_of_those(candidates, sample.candidates),
        sample=sample,
        context_cpu_s=context_cpu_s,
        full_context_cpu_s=full_context_cpu_s,
        serving_cpu_s=cpu_s / answered if answered else None,
        kept_days=kept_days,
    )


def _bytes_a_record(home: Path, kind: LogKind, columns: tuple[str, ...] = ()) -> float | None:
    """Of what is rolled, as it is kept; None while nothing is. columns: only what these take."""
    files = [(path, pq.read_metadata(path)) for path in parquet_files(log_folder(home, kind))]
    rows = sum(metadata.num_rows for _, metadata in files)
    if not columns:
        kept = sum(path.stat().st_size for path, _ in files)
    else:
        kept = sum(
            group.column(at).total_compressed_size
            for _, metadata in files
            for group in map(metadata.row_group, range(metadata.num_row_groups))
            for at in range(group.num_columns)
            if group.column(at).path_in_schema.partition(".")[0] in columns
        )
    return round(kept / rows, 1) if rows else None


def _of_those(bytes_a_record: float | None, share: float) -> float | None:
    """Of one that has it, where a share of the records does; not known where none does."""
    return round(bytes_a_record / share, 1) if bytes_a_record is not None and share else None


def _serving(home: Path) -> tuple[int | None, float]:
    """(since when, CPU seconds) of the serving processes that run; their start is no request's and counts too."""
    state = Stack(home).state
    began, spent = [], 0.0
    for name, running in state.processes.items() if state else ():
        for pid in running.pids if name.startswith(SERVING) else ():
            try:
                process = psutil.Process(pid)
                used = process.cpu_times()
                began.append(process.create_time())
            except psutil.Error:
                continue
            spent += used.user + used.system
    return (int(max(began) * 1e6) if began else None), spent
