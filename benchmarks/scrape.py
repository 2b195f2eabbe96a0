"""What our service says of itself: counters of `/metrics` between two moments."""

import urllib.request
from collections.abc import Mapping

from prometheus_client.parser import text_string_to_metric_families


def scrape(url: str) -> dict[tuple[str, str], float]:
    """(series, its label that matters) → value, for what the benchmark reads."""
    with urllib.request.urlopen(f"{url}/metrics", timeout=10) as response:  # noqa: S310 - our own address
        text = response.read().decode()
    found: dict[tuple[str, str], float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            label = sample.labels.get("degradation") or sample.labels.get("stage") or ""
            if sample.name.startswith(("streamrec_recommendations", "streamrec_stage_seconds")):
                key = (sample.name, label)
                found[key] = found.get(key, 0.0) + sample.value
    return found


def rungs(before: Mapping[tuple[str, str], float], after: Mapping[tuple[str, str], float]) -> dict[str, int]:
    """Answers by rung."""
    return {
        label: int(value - before.get((name, label), 0.0))
        for (name, label), value in after.items()
        if name == "streamrec_recommendations_total" and value > before.get((name, label), 0.0)
    }


def stages_ms(before: Mapping[tuple[str, str], float], after: Mapping[tuple[str, str], float]) -> dict[str, float]:
    """Mean milliseconds of each stage."""
    found = {}
    for name, stage in after:
        if name != "streamrec_stage_seconds_count":
            continue
        n = after[name, stage] - before.get((name, stage), 0.0)
        total = "streamrec_stage_seconds_sum"
        if n > 0:
            found[stage] = round((after[total, stage] - before.get((total, stage), 0.0)) / n * 1e3, 4)
    return dict(sorted(found.items(), key=lambda item: -item[1]))
