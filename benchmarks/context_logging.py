"""What an answer pays for its context record: `python -m benchmarks.context_logging [--pairs 600]`.

One process, one world, two runtimes: one keeps no context, the other keeps each (with rows and candidates on their
default samples). The same requests go to both in turn; CPU of the whole process, writer included, per request.
"""

import argparse
import asyncio
import json
import tempfile
import time
from pathlib import Path

from benchmarks.paired import in_turn, spread
from benchmarks.reference_world import user_id, write_world
from bentos.recommender.assemble import load_models
from bentos.recommender.bundles import pinned
from bentos.recommender.runtime import Runtime
from contracts.http import RecommendationRequest
from contracts.settings import Settings

USERS, ITEMS, BATCH = 500, 20_000, 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=600, help="of batches of 20 requests")
    print(json.dumps(asyncio.run(measure(parser.parse_args().pairs))))


async def measure(pairs: int) -> dict[str, object]:
    with tempfile.TemporaryDirectory(prefix="streamrec-contexts-") as name:
        folder = Path(name)
        write_world(folder / "world", users=USERS, items=ITEMS)
        made = {share: _runtime(folder, share) for share in (0.0, 1.0)}
        for runtime in made.values():
            for n in range(5):
                await _batch(runtime, n)
        us: dict[float, list[float]] = {share: [] for share in made}
        for n in range(pairs):
            for share in in_turn(list(made), n):
                us[share].append(await _batch(made[share], n))
        for runtime in made.values():
            runtime.phase = "stopped"
            await runtime.close()
        segments = sum(f.stat().st_size for f in (folder / "home-1.0" / "log" / "contexts").rglob("*") if f.is_file())
    paid = [on - off for off, on in zip(us[0.0], us[1.0], strict=True)]
    return {
        "cpu_us_off": spread(us[0.0]),
        "cpu_us_on": spread(us[1.0]),
        "cpu_us_paid": spread(paid),
        "bytes_a_record": round(segments / ((pairs + 5) * BATCH), 1),
        "pairs": pairs,
        "requests_a_batch": BATCH,
        "items": ITEMS,
    }


def _runtime(folder: Path, share: float) -> Runtime:
    pins = pinned(None, folder / "world")
    settings = Settings(
        home=folder / f"home-{share}", online_store="memory", deadline_ms=10_000, patience_ms=10_000, log_contexts=share
    )
    runtime = Runtime(settings, pins, load_models(pins.folders))
    runtime.phase = "serving"
    return runtime


async def _batch(runtime: Runtime, n: int) -> float:
    """CPU microseconds a request."""
    began = time.process_time_ns()
    for i in range(BATCH):
        at = n * BATCH + i
        request = RecommendationRequest(user_id(at % USERS), k=20, context={"country": "DE", "device": "web"})
        runtime.record(await runtime.recommend(request, f"{id(runtime):x}-{at}", time.perf_counter()))
    return (time.process_time_ns() - began) / 1000 / BATCH


if __name__ == "__main__":
    main()
