"""The picture and the table of the loop in docs/monitoring.md, from what the end-to-end test left:

    pytest -m slow tests/e2e/test_watch_loop.py --basetemp=DIR
    python -m benchmarks.watch_loop DIR/watch-loop0

With no folder: from benchmarks/results/watch-loop.json again.
"""

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc

from benchmarks.drift_report import PAGE, ROOT
from benchmarks.sections import replaced
from bentos.telemetry.event_log import read_events
from bentos.telemetry.exposures import read_exposures

RESULT = ROOT / "benchmarks" / "results" / "watch-loop.json"
PICTURE = ROOT / "docs" / "pictures" / "watch-loop.svg"
BIN_S = 15
WORDS = {
    "drift": "the population drifts",
    "alert": "the alert is raised",
    "training": "the policy says yes: data is exported, training begins",
    "released": "the new Bento is built, its release begins",
    "promoted": "it is champion",
    "recovery": "the recovery is told",
}


def study(folder: Path) -> dict[str, Any]:
    """Moments in seconds after the drift; clicks for each shown item in bins of `BIN_S`, and from how many requests."""
    moments = json.loads((folder / "moments.json").read_text())
    home, zero_us = folder / "home", moments["drift"]
    shown, sent = read_exposures(home), read_events(home)
    shown = shown.filter(pc.equal(shown["outcome"], "ok"))
    clicks = sent.filter(pc.equal(sent["event"], "click"))
    at = dict(zip(*(shown[c].to_pylist() for c in ("request_id", "timestamp_us")), strict=True))
    stamps = np.array(list(at.values()))
    items = np.array(pc.list_value_length(shown["item_ids"]).to_pylist())
    clicked = np.array([at[request] for request in clicks["request_id"].to_pylist() if request in at])
    edges = np.arange(np.floor((stamps.min() - zero_us) / 1e6 / BIN_S), (stamps.max() - zero_us) / 1e6 / BIN_S) * BIN_S
    bins = np.append(edges, edges[-1] + BIN_S)
    requests, shows, hits = (
        np.histogram((when - zero_us) / 1e6, bins, weights=weights)[0]
        for when, weights in ((stamps, None), (stamps, items), (clicked, None))
    )
    full = requests >= requests.max() / 4  # between two crowds nobody comes
    rate = [float(h / s) if ok else None for h, s, ok in zip(hits, shows, full, strict=True)]
    return {
        "moments_s": {name: round((moments[name] - zero_us) / 1e6, 1) for name in WORDS},
        "bin_s": BIN_S,
        "from_s": [float(edge) for edge in edges],
        "ctr": [None if r is None else round(r, 4) for r in rate],
        "requests": int(requests.sum()),
        "clicks": int(hits.sum()),
    }


def table(found: Mapping[str, Any]) -> str:
    lines = ["| seconds after the drift | |", "|---|---|"]
    lines += [f"| {found['moments_s'][name]:,.0f} | {words} |" for name, words in WORDS.items()]
    return "\n" + "\n".join(lines) + "\n"


def rates(found: Mapping[str, Any]) -> str:
    """Clicks for each shown item before the drift, between it and the promotion, and after that."""
    promoted = found["moments_s"]["promoted"]
    known = [(at, ctr) for at, ctr in zip(found["from_s"], found["ctr"], strict=True) if ctr is not None]
    parts = {
        "before the drift": [c for at, c in known if at + BIN_S <= 0],
        "from the drift to the promotion": [c for at, c in known if at >= 0 and at + BIN_S <= promoted],
        "after it": [c for at, c in known if at >= promoted],
    }
    return "; ".join(f"{np.mean(values):.1%} {words}" for words, values in parts.items() if values)


def draw(found: Mapping[str, Any], target: Path) -> None:
    from benchmarks.pictures import OURS, PEER, plt

    figure, axes = plt.subplots(figsize=(7.2, 2.4))
    middle = [at + BIN_S / 2 for at in found["from_s"]]
    axes.plot(middle, [float("nan") if c is None else 100 * c for c in found["ctr"]], "o-", ms=2, lw=1, color=OURS)
    axes.set(xlabel="seconds after the drift", ylabel="clicks, % of shown items")
    axes.set_ylim(bottom=0)
    top = axes.get_ylim()[1]
    for name, at in found["moments_s"].items():
        axes.axvline(at, color=PEER, lw=0.8, ls="--")
        axes.text(at, top, f" {name}", rotation=90, va="top", ha="left", fontsize=7, color="0.3")
    figure.tight_layout()
    figure.savefig(target, metadata={"Date": None})
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", type=Path)
    folder = parser.parse_args().folder
    if folder is not None:
        RESULT.write_text(json.dumps(study(folder), indent=1) + "\n")
    found = json.loads(RESULT.read_text())
    draw(found, PICTURE)
    PAGE.write_text(replaced(PAGE.read_text(), {"watch-loop": table(found), "watch-loop-ctr": rates(found)}))


if __name__ == "__main__":
    main()
