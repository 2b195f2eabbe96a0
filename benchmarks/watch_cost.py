"""What a drift and skew run costs: a log of a million exposures against a reference of 100,000 rows.

    python -m benchmarks.watch_cost --exposures 1000000 --out benchmarks/results/watch_cost.json

The log is drawn (seeded) and written as a service writes it; then the run is a process of its own, as the watch starts
it: nice 15, threads capped at two. Wall and CPU seconds and the peak of its memory are those of that process, from its
start to its end, imports included.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from monitoring.frames.reference import Reference

LIMITS = {"wall_s": 60.0, "peak_rss_mb": 2048.0}
SINCE_US = 1_760_000_000_000_000
HOUR_US = 3_600_000_000
USERS, ITEMS = 200_000, 20_000


def draw(folder: Path, exposures: int, reference_rows: int, seed: int) -> None:
    from benchmarks.watch_log import K, World, write_log, write_reference

    world = World.draw(seed, items=ITEMS, users=USERS)
    write_reference(folder / "reference", world, rows=reference_rows, seed=seed)
    until_us = SINCE_US + 24 * HOUR_US
    write_log(folder / "home", world, requests=exposures // K, since_us=SINCE_US, until_us=until_us, seed=seed)


def watch(folder: Path, engine: str) -> dict[str, Any]:
    """The run itself; in the process that is measured."""
    from monitoring.quiet import be_quiet

    be_quiet()
    began = time.perf_counter()
    from contracts.settings import Settings
    from monitoring.drift.service.run import drift_run
    from monitoring.frames.reference import read_reference

    reference = read_reference(folder / "reference", "run", "models:/streamrec-ranking/1")
    until_us = SINCE_US + 24 * HOUR_US
    imported = time.perf_counter()
    reports = drift_run(
        Settings(home=folder / "home"),
        SINCE_US,
        until_us,
        now_us=until_us,
        engine=engine,
        reference=lambda _: reference,
    )
    drifted = time.perf_counter()
    skewed = _skew(folder, reference, until_us)
    ended = time.perf_counter()
    online_s, online_cpu_s = _online(folder, reference, until_us)
    return {
        "verdicts": [r.verdict for r in reports],
        "rows": sum(r.rows for r in reports),
        "users": [list(r.judged.rows) for r in reports if r.judged],
        "checks": sum(len(r.judged.found) for r in reports if r.judged),
        "features": len(reference.summaries),
        "import_s": round(imported - began, 2),
        "drift_s": round(drifted - imported, 2),
        "skew_s": round(ended - drifted, 2),
        "skew_features": skewed,
        "online_s": online_s,
        "online_cpu_s": online_cpu_s,
    }


def _online(folder: Path, reference: "Reference", until_us: int) -> tuple[float, float]:
    """A look of the online detectors, every 10 minutes: wall and CPU seconds. Clicks are not in it: a drawn log has
    none."""
    from contracts.settings import Settings
    from monitoring.drift.stream.run import stream_run

    began, used = time.perf_counter(), time.process_time()
    stream_run(Settings(home=folder / "home"), now_us=until_us, hours=24, reference=lambda _: reference)
    return round(time.perf_counter() - began, 2), round(time.process_time() - used, 2)


def _skew(folder: Path, reference: "Reference", until_us: int) -> int:
    """Training statistics against serving statistics. The join of 200 answers with the offline log is not in it: its
    cost is that of the data set, and a drawn log has none."""
    from contracts.settings import Settings
    from monitoring.skew.limits import Limits
    from monitoring.skew.served import rankers_of, served
    from monitoring.skew.statistics import compare

    home = folder / "home"
    (ranking, _), *_ = rankers_of(home, SINCE_US, until_us).most_common()
    summed = served(
        home,
        ranking,
        since_us=SINCE_US,
        until_us=until_us,
        feature_hash=reference.feature_hash,
        trained_until_us=reference.trained_until_us,
        now_us=until_us,
    )
    found = compare(
        reference.summaries,
        summed.summaries,
        training_users=reference.users,
        served_users=summed.users,
        limits=Limits.of(Settings(home=home)),
        unread=reference.unread,
        importance=reference.importance,
        troubles=summed.troubles,
    )
    return len(found)


def measured(folder: Path, engine: str) -> dict[str, Any]:
    """The run in a process of its own, with what it took."""
    command = [sys.executable, "-m", "benchmarks.watch_cost", "--inside", str(folder), "--engine", engine]
    began, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=dict(os.environ))
    wall = time.perf_counter() - began
    if done.returncode:
        raise SystemExit(done.stderr)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    said: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return said | {"engine": engine, "wall_s": round(wall, 1), "cpu_s": round(cpu, 1)}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.watch_cost", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--exposures", type=int, default=1_000_000)
    parser.add_argument("--reference-rows", type=int, default=100_000)
    parser.add_argument("--engine", choices=("alibi", "scipy"), action="append")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="draw into this folder, or use what was drawn there before")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--inside", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    engines = given.engine or ["alibi", "scipy"]
    if given.inside:
        said = watch(given.inside, engines[0])
        said["peak_rss_mb"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
        print(json.dumps(said))
        return 0
    with tempfile.TemporaryDirectory(prefix="streamrec-watch-") as scratch:
        folder = given.keep or Path(scratch)
        if not (folder / "reference").exists():
            draw(folder, given.exposures, given.reference_rows, given.seed)
        log_mb = sum(f.stat().st_size for f in (folder / "home").rglob("*.parquet")) / 2**20
        runs = [measured(folder, engine) for engine in engines]
    document = {"exposures": given.exposures, "log_mb": round(log_mb), "limits": LIMITS, "runs": runs}
    document["met"] = all(run[name] <= limit for run in runs for name, limit in LIMITS.items())
    print(json.dumps(document, indent=1))
    if given.out:
        given.out.write_text(json.dumps(document, indent=1) + "\n")
    return 0 if document["met"] else 1


if __name__ == "__main__":
    sys.exit(main())
