"""How often the check `online` alarms without cause, and after how many requests with one.

    python -m benchmarks.stream --save

Logs are drawn (seeded) as a service writes them, 3,000 answers to 6,000 users over 20 hours, half of them after the
change. Clicks are those of as many slates. Each log is looked at as the watch does, with the shipped thresholds.
"""

import argparse
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from benchmarks.drift_report import PAGE, RESULT
from benchmarks.sections import replaced
from benchmarks.watch_log import NO_DRIFT, Drift, World, write_log, write_reference
from contracts.settings import Settings
from monitoring.drift.service.labelled import LabelSource
from monitoring.drift.stream.run import DAY_US, HOUR_US, SETTLED_US, stream_run
from monitoring.frames.reference import Reference, read_reference

KEPT = RESULT.with_name("stream.json")
SECTION = "stream"
NOW_US = 1_760_000_000_000_000
REQUESTS, USERS, ITEMS = 3_000, 6_000, 2_000
CTR = 0.2  # answers of which something is acted on
# name → drift of the log, CTR after the change, the signal that is to find it
PLANTS: Mapping[str, tuple[Drift, float, str]] = {
    "features missing for 5 % of the answers": (Drift(since=0.5, missing=0.05), CTR, "missing_user_positives_30d"),
    "features missing for 20 %": (Drift(since=0.5, missing=0.2), CTR, "missing_user_positives_30d"),
    "clicks of 20 % fall to 12 %": (NO_DRIFT, 0.12, "clicks"),
}


def study(windows: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="streamrec-stream-") as name:
        folder, world = Path(name), World.draw(3, items=ITEMS, users=USERS)
        reference = read_reference(write_reference(folder / "reference", world, rows=40_000))
        alarms = 0
        delays: dict[str, list[int | None]] = {plant: [] for plant in PLANTS}
        for seed in range(windows):
            alarms += bool(_look(folder / f"{seed}", world, reference, NO_DRIFT, CTR, seed))
            for at, (plant, (drift, ctr, wanted)) in enumerate(PLANTS.items()):
                found = _look(folder / f"{seed}-{at}", world, reference, drift, ctr, 1_000 * (at + 1) + seed)
                delays[plant].append(found.get(wanted))
    return {
        "windows": windows,
        "answers": REQUESTS,
        "false_alarms": alarms,
        "found": {plant: sum(d is not None for d in some) for plant, some in delays.items()},
        "requests": {plant: _middle([d for d in some if d is not None]) for plant, some in delays.items()},
    }


def _look(home: Path, world: World, reference: Reference, drift: Drift, ctr: float, seed: int) -> dict[str, int]:
    """Signal in breach → requests from the change to the alarm."""
    end_us = NOW_US - SETTLED_US
    for days, requests, how in ((3, 20, NO_DRIFT), (0, REQUESTS, drift)):  # that the ranker has served before; the day
        until_us = end_us - days * DAY_US
        since_us = until_us - 20 * HOUR_US
        write_log(
            home, world, requests=requests, since_us=since_us, until_us=until_us, seed=seed + 500_000 * days, drift=how
        )
    (report,) = stream_run(
        Settings(home=home), now_us=NOW_US, hours=24, labels=_clicks(ctr, seed), reference=lambda _: reference
    )
    return {heard.name: heard.requests for heard in report.heard if heard.alarm_us is not None}


def _clicks(later: float, seed: int) -> LabelSource:
    """Slates of one item; the second half of the last day's have another CTR."""

    def labels(since_us: int, until_us: int, ranker: str) -> pa.Table:
        random = np.random.default_rng([seed, since_us % 1_000_003])
        rate = np.full(REQUESTS, CTR)
        if until_us > NOW_US - DAY_US:
            rate[REQUESTS // 2 :] = later
        at = np.sort(random.integers(since_us, until_us, REQUESTS))
        return pa.table(
            {
                "timestamp": pa.array(at, pa.timestamp("us", tz="UTC")),
                "request_id": [f"r{n}" for n in range(REQUESTS)],
                "user_id": [f"u{n}" for n in random.integers(0, USERS, REQUESTS)],
                "label": (random.random(REQUESTS) < rate).astype(float),
            }
        )

    return labels


def _middle(delays: list[int]) -> dict[str, int] | None:
    return {"median": int(np.median(delays)), "p90": int(np.percentile(delays, 90))} if delays else None


def table(found: Mapping[str, Any]) -> str:
    """For docs/monitoring.md."""
    lines = ["| drift | found | requests from the change to the alarm, median (p90) |", "|---|---|---|"]
    for plant, n in found["found"].items():
        delay = found["requests"][plant]
        said = f"{delay['median']:,} ({delay['p90']:,})" if delay else ""
        lines.append(f"| {plant} | {n} of {found['windows']} | {said} |")
    lines.append(f"| nothing | {found['false_alarms']} of {found['windows']} | |")
    return "\n" + "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.stream", description=__doc__)
    parser.add_argument("--windows", type=int, default=40)
    parser.add_argument(
        "--save", type=Path, nargs="?", const=KEPT, help="keep the JSON, and make the page's table anew"
    )
    given = parser.parse_args()
    found = study(given.windows)
    print(json.dumps(found, indent=1))
    if given.save:
        given.save.write_text(json.dumps(found, indent=1) + "\n")
        PAGE.write_text(replaced(PAGE.read_text(), {SECTION: table(found)}))


if __name__ == "__main__":
    main()
