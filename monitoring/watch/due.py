"""Which checks are due. Pure."""

from collections.abc import Iterable, Mapping

from monitoring.watch.check import OF_BENTOS, OF_CHAMPION
from monitoring.watch.schema import CheckName, Schema
from monitoring.watch.state import Look

MINUTE_US = 60_000_000


def due(schema: Schema, looks: Mapping[str, Look], bentos: Iterable[str], now_us: int) -> list[tuple[CheckName, str]]:
    """(check, Bento), the longest overdue first. bentos: the champion first; without one, freshness still looks at
    lists and trainings."""
    live = list(dict.fromkeys(bentos))
    found = []
    for name, minutes in schema.every_minutes().items():
        if name == "watch":
            continue
        targets = live if name in OF_BENTOS else live[:1] if name in OF_CHAMPION else [""]
        if name == "freshness" and not live:
            targets = [""]
        for bento in targets:
            look = looks.get(f"{name}|{bento}")
            # A clock that was put back must not silence a check.
            late_us = now_us - look.at_us - int(minutes * MINUTE_US) if look and look.at_us <= now_us else now_us
            if late_us >= 0:
                found.append((late_us, name, bento))
    return [(name, bento) for _, name, bento in sorted(found, key=lambda row: -row[0])]
