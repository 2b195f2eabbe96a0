"""False alarms and power of the drift detectors, by both engines, on Online Retail II and a synthetic world.

    python -m benchmarks.drift --retail DATA --world DATA [--windows 200] [--save benchmarks/results/drift.json]

Each window: 20,000 rows of a log as the reference and 3,000 others as the window, drawn at random, so that nothing has
drifted but what is planted. What a plant changes is looked at again; everything is then judged together, as the command
does. `--part NAME` does one part and adds it to the file: the whole takes some 40 minutes of one core.
"""

import argparse
import json
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.drift_worlds import PLANTS, REFERENCE, WINDOW, Pool, retail, synthetic, table
from monitoring.drift.base import Engine, Result
from monitoring.drift.compare import compare
from monitoring.drift.correction import correct, overall
from monitoring.drift.engines.choose import ENGINES, choose
from monitoring.drift.frame import Frame
from monitoring.drift.online.base import Online
from monitoring.drift.online.registry import ONLINE
from monitoring.drift.question import Question
from monitoring.drift.report import Report

SEED = 7
ALPHA = 0.05
NOW_US = 4_000_000_000_000_000
ERT = 5_000  # rows between two false alarms of an online detector
STREAMS = 50
LONGEST = 10_000  # rows of a stream
HIDDEN = ("world_item",)
# What a plant changes, and where it has to be found.
FOUND_IN: Mapping[str, tuple[str, ...]] = {
    "country's share × 2": ("features/country",),
    "price + 15 %": ("features/price",),
    "one category gone": ("features/category",),
    "null rate + 2 points": ("features/price/missing",),
    "embeddings turned by 5°": ("features/embedding/paired_cosine",),
    "tastes of one segment swapped": ("concept/",),
}

Results = dict[str, Result]


def judged(report: Report) -> Results:
    """Every result by its path."""
    found = {f"features/{n}/{t}": r for n, f in report.features.items() for t, r in f.checks.items()}
    found |= {f"outputs/{n}": r for n, r in report.outputs.items()}
    return found | {f"concept/{n}": r for n, r in report.concept.items()}


def windows(pool: Pool, engine_name: str, count: int, progress: Callable[[str], None]) -> dict[str, Any]:
    """Of `count` windows: how many raise an alarm as they are, and how many of each plant are found."""
    engine = choose(engine_name)
    plants = {name: plant for name, plant in PLANTS.items() if pool.world or name != "tastes of one segment swapped"}
    false, named, alarmed = 0, dict.fromkeys(plants, 0), dict.fromkeys(plants, 0)
    by_test: dict[str, int] = {}
    unjudged = 0
    started = time.process_time()
    for window in range(count):
        rng = np.random.default_rng([SEED, window])
        rows = rng.choice(len(pool), REFERENCE + WINDOW, replace=False)
        before, now = pool.window(rows[:REFERENCE]), pool.window(rows[REFERENCE:])
        reference = Frame(table(_shown(before)))

        slices = ("country",) if pool.world else ()
        ask = partial(_asked, reference, engine, window, slices)
        as_it_is = ask(now)
        verdict = overall(as_it_is)
        false += verdict == "drift"
        unjudged += verdict == "inconclusive"
        for path, result in as_it_is.items():
            by_test[path] = by_test.get(path, 0) + (result.drift == "drift")
        for name, plant in plants.items():
            changed = plant(pool, now, rng)
            if "label" in changed:
                keep = ("item_id", "position", "score", "label", "country")
                less = {k: {**now, **changed}[k] for k in keep}
                again = {p: r for p, r in ask(less).items() if not p.startswith("features/") and p in as_it_is}
            else:
                again = ask({**now, **changed}, list(changed))
            after = correct({**as_it_is, **again}, ALPHA)
            alarmed[name] += overall(after) == "drift"
            named[name] += any(r.drift == "drift" for p, r in after.items() if p.startswith(FOUND_IN[name]))
        if window % 20 == 19:
            progress(f"{pool.name}, {engine_name}: {window + 1} windows, {false} false, {named}")
    return {
        "windows": count,
        "false_alarms": false,
        "inconclusive": unjudged,
        "bound": bound(count),
        "tests": len(by_test),
        "false_by_test": {path: n for path, n in by_test.items() if n},
        "found": named,
        "alarmed": alarmed,
        "cpu_s_per_window": round((time.process_time() - started) / count, 3),
    }


def _asked(
    reference: Frame,
    engine: Engine,
    seed: int,
    slices: tuple[str, ...],
    current: Mapping[str, Any],
    features: list[str] | None = None,
) -> Results:
    question = Question(ALPHA, seed, features, slices)
    return judged(compare(reference, Frame(table(_shown(current))), engine=engine, now_us=NOW_US, ask=question))


def bound(count: int, alpha: float = ALPHA) -> int:
    """The most alarms that a rate of alpha explains: 95 % of the binomial."""
    from scipy.stats import binom

    return int(binom.ppf(0.95, count, alpha))


def by_users(pool: Pool, count: int) -> dict[str, int]:
    """False alarms where a window is of whole users instead of rows: without and with one row a user."""
    engine = choose("scipy")
    found = {"rows": 0, "one row a user": 0}
    order = np.argsort(pool.user, kind="stable")
    starts = np.flatnonzero(np.r_[True, np.diff(pool.user[order]) > 0])
    parts = np.split(order, starts[1:])
    for window in range(count):
        rng = np.random.default_rng([SEED, 1, window])
        mixed = [parts[i] for i in rng.permutation(len(parts))]
        ends = np.cumsum([len(p) for p in mixed])
        cut = int(np.searchsorted(ends, len(pool) // 3))
        before, now = np.concatenate(mixed[cut:]), np.concatenate(mixed[:cut])
        frames = [Frame(table(_shown(pool.window(rows)))) for rows in (before[:100_000], now[:50_000])]
        for name, unit in (("rows", None), ("one row a user", "user_id")):
            question = Question(ALPHA, window, ["country", "category", "price"], unit=unit)
            report = compare(*frames, engine=engine, now_us=NOW_US, ask=question)
            found[name] += report.verdict == "drift"
    return {**found, "windows": count}


def _shown(columns: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    return {name: column for name, column in columns.items() if name not in HIDDEN}


Stream = Callable[[dict[str, NDArray[Any]]], NDArray[Any]]


def streams(pool: Pool) -> dict[str, tuple[str, tuple[str, ...], Stream]]:
    """Plant → what is watched, by which detectors, and how a window becomes that stream."""
    values, hits = ("cusum", "tumbling_ks", "alibi_cvm"), ("rate", "alibi_fet")
    found: dict[str, tuple[str, tuple[str, ...], Stream]] = {
        "country's share × 2": (f"rows of {pool.country}", hits, lambda w: w["country"] == pool.country),
        "price + 15 %": ("log price", values, lambda w: np.log(w["price"][~np.isnan(w["price"])])),
        "one category gone": (f"rows of {pool.category}", hits, lambda w: w["category"] == pool.category),
        "null rate + 2 points": ("missing prices", hits, lambda w: np.isnan(w["price"])),
        "embeddings turned by 5°": ("embeddings", ("tumbling_mmd", "alibi_mmd"), lambda w: w["embedding"]),
    }
    if pool.world:
        found["tastes of one segment swapped"] = ("calibration slope in FR", values, _slopes)
    return found


def _slopes(window: dict[str, NDArray[Any]]) -> NDArray[Any]:
    """What `slice_slope` averages, around the logit of a tenth."""
    there = window["country"] == "FR"
    p, label = np.clip(window["score"][there], 1e-4, 1 - 1e-4), window["label"][there]
    return np.asarray((label - p) * (np.log(p / (1 - p)) + 2.2))


def delays(pool: Pool, free: bool, progress: Callable[[str], None]) -> list[dict[str, Any]]:
    """Rows of the stream from the planted drift to the alarm, and rows between false alarms without one."""
    rng = np.random.default_rng([SEED, 2])
    reference = pool.window(rng.choice(len(pool), REFERENCE, replace=False))
    found = []
    for plant, (what, detectors, stream) in streams(pool).items():
        for name in detectors:
            if name.startswith("alibi") == free:
                continue
            made = ONLINE[name](stream(reference), ert=ERT, seed=SEED)
            count, longest = (STREAMS, LONGEST) if free else (10, 4_000)
            clean, alarms, waited = 0, 0, []
            for i in range(count):
                mine = np.random.default_rng([SEED, 3, i])
                now = pool.window(mine.choice(len(pool), longest, replace=False))
                rows = stream(now)
                alarms += _alarms(made, rows)
                clean += len(rows)
                made = made if not free else ONLINE[name](stream(reference), ert=ERT, seed=SEED + i)
                drifted = stream({**now, **PLANTS[plant](pool, now, mine)})
                at = _first(made, drifted)
                waited.append(at)
            seen = sorted(w for w in waited if w is not None)
            share = len(rows) / longest  # rows of the stream for each row of the log
            found.append(
                {
                    "drift": plant,
                    "watched": what,
                    "detector": name,
                    "streams": count,
                    "longest": longest,
                    "found": len(seen),
                    "median_rows": _quantile(waited, 0.5, share),
                    "p90_rows": _quantile(waited, 0.9, share),
                    "rows_between_false_alarms": round(clean / alarms) if alarms else None,
                    "clean_rows": clean,
                }
            )
            progress(json.dumps(found[-1]))
    return found


def _alarms(made: Online, rows: NDArray[Any]) -> int:
    return sum(made.update(row) is not None for row in rows)


def _first(made: Online, rows: NDArray[Any]) -> int | None:
    for at, row in enumerate(rows, 1):
        if made.update(row) is not None:
            return at
    return None


def _quantile(waited: list[int | None], q: float, share: float) -> int | None:
    """Of rows of the log; None where so many were never found."""
    value = np.quantile([np.inf if w is None else w for w in waited], q, method="higher")
    return round(float(value) / share) if np.isfinite(value) else None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--retail", type=Path, required=True)
    parser.add_argument("--world", type=Path, required=True)
    parser.add_argument("--windows", type=int, default=200)
    parser.add_argument("--part", help="POOL/ENGINE, POOL/online or POOL/users; POOL/online-alibi [default: all]")
    parser.add_argument("--save", type=Path)
    options = parser.parse_args()

    def progress(line: str) -> None:
        print(line, flush=True)

    whole: dict[str, Any] = json.loads(options.save.read_text()) if options.save and options.save.exists() else {}
    for name in [options.part.partition("/")[0]] if options.part else ["retail", "world"]:
        pool = retail(options.retail, SEED) if name == "retail" else synthetic(options.world, SEED)
        for part in [options.part.partition("/")[2]] if options.part else [*ENGINES, "online", "online-alibi", "users"]:
            if part in ENGINES:
                done: Any = windows(pool, part, options.windows, progress)
            elif part == "users":
                done = by_users(pool, min(options.windows, 100))
            else:
                done = delays(pool, part == "online", progress)
            if options.save:  # another part may have been saved meanwhile
                whole = json.loads(options.save.read_text()) if options.save.exists() else {}
            whole.setdefault(name, {"log": pool.name, "rows": len(pool), "category": pool.category})[part] = done
            whole |= {"reference_rows": REFERENCE, "window_rows": WINDOW, "alpha": ALPHA, "ert": ERT, "seed": SEED}
            if options.save:
                options.save.write_text(json.dumps(whole, indent=1, ensure_ascii=False) + "\n")
    print(json.dumps(whole, ensure_ascii=False))


if __name__ == "__main__":
    main()
