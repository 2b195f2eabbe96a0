"""One check in a process of its own: `python -m monitoring.watch.check NAME --bento TAG --at MICROSECONDS --out FILE`.

A check may import what takes seconds and hundreds of megabytes, and may die of it: the watch goes on. What it found is
put in place in one step, so that there is all of it or nothing.
"""

import argparse
import importlib
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from contracts.settings import load_settings
from monitoring.quiet import be_quiet
from monitoring.signals import Signal
from monitoring.watch.checks.base import Asked, Check
from monitoring.watch.schema import CheckName, schema_of

# By name of the module, since each has its own heavy imports; `watch` is what the watch says of its own checks.
CHECKS: Mapping[CheckName, str] = {
    "levels": "monitoring.watch.checks.levels",
    "freshness": "monitoring.watch.checks.freshness",
    "drift": "monitoring.watch.checks.drift",
    "online": "monitoring.watch.checks.online",
    "skew": "monitoring.watch.checks.skew",
    "quality": "monitoring.watch.checks.quality",
    "kept": "monitoring.watch.checks.kept",
    "review": "monitoring.watch.checks.review",
}
# Those made for each live Bento; the others find by themselves who served.
OF_BENTOS: frozenset[CheckName] = frozenset({"freshness", "quality", "skew"})
# That made for the champion alone.
OF_CHAMPION: frozenset[CheckName] = frozenset({"review"})
# Seconds in which it is meant to end, by far.
LATE_S: Mapping[CheckName, float] = {
    "levels": 120,
    "freshness": 120,
    "drift": 900,
    "online": 300,
    "skew": 900,
    "quality": 900,
    "kept": 900,
    "review": 900,
}


def signals_of(name: CheckName, asked: Asked) -> list[Signal]:
    """
    Raises:
        Exception: whatever the check raised.
    """
    check: Check = importlib.import_module(CHECKS[name]).check
    return check(asked)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m monitoring.watch.check", description=__doc__.splitlines()[0])
    parser.add_argument("name", choices=sorted(CHECKS))
    parser.add_argument("--bento", default="")
    parser.add_argument("--at", type=int, required=True)
    parser.add_argument("--runs", default="[]")
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args(arguments)
    be_quiet()
    settings = load_settings()
    asked = Asked(settings, schema_of(settings.home, given.bento), given.bento, given.at, json.loads(given.runs))
    found = [asked.schema.weighed(signal) for signal in signals_of(given.name, asked)]
    part = given.out.with_suffix(".part")
    part.write_text(json.dumps([signal.as_json() for signal in found], allow_nan=False))
    part.replace(given.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
