"""From the JSON of the runs to the tables and pictures of docs/performance.md: `python -m benchmarks.report`.

Reads benchmarks/results/*.json, what is there of them; writes what stands between the marks of the page, and the
pictures. A figure is typed by nobody.
"""

import json
import math
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.pictures import flame, grown
from benchmarks.sections import replaced
from benchmarks.where import KERNELS

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
PAGE = ROOT / "docs" / "performance.md"
PICTURES = ROOT / "docs" / "pictures"
TARGET_RPS = 10_000
REFERENCE_ITEMS, REFERENCE_ROWS = 200_000, 500
RATIO_AIMS = {"bentoml_graph": 5.0, "ray_serve": 5.0, "fastapi": 2.5}
NAMES = {"fastapi": "FastAPI", "bentoml_graph": "BentoML, documented graph", "ray_serve": "Ray Serve"}
NOT_YET = "Not measured yet: `make bench`.\n"
NO_GPU = """\
Not measured: no machine with a GPU was to be had. `make gpu-bench` measures it where there is one; on the CPU its
way is walked by a test.
"""

Results = Mapping[str, dict[str, Any]]


def results(folder: Path = RESULTS) -> dict[str, dict[str, Any]]:
    """File name without its ending → document."""
    return {path.stem: json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))}


def page(text: str, found: Results, pictures: Path = PICTURES) -> str:
    """`text` with each section between `<!-- NAME -->` and `<!-- /NAME -->` made anew; draws the pictures."""
    made = {name: section(found, pictures) or NOT_YET for name, section in SECTIONS.items()}
    return replaced(text, {name: f"\n{section}" for name, section in made.items()})


def aims(found: Results, pictures: Path) -> str:
    """Against what was wanted: each aim once, hit, missed or not measured."""
    lines = ["| | aim | measured | |", "|---|---|---|---|"]
    for what, aim, measure in AIMS:
        measured, hit = measure(found) or ("not measured", None)
        verdict = {True: "hit", False: "**missed**", None: ""}[hit]
        lines.append(f"| {what} | {aim} | {measured} | {verdict} |")
    return "\n".join(lines) + "\n"


Measured = tuple[str, bool] | None


def _ratio(name: str, found: Results) -> Measured:
    one = found.get("serve", {}).get("peers", {}).get(name, {})
    return (_interval(one["ratio_interval"], "×"), one["ratio"] >= RATIO_AIMS[name]) if "ratio" in one else None


def _at_half(percentile: str, most_ms: float, found: Results) -> Measured:
    serve = found.get("serve", {})
    ms = serve.get(f"{percentile}_ms")
    return None if ms is None else (f"{_ms(ms)} at {_share_of_peak(serve)}", ms < most_ms)


def _share_of_peak(one: dict[str, Any]) -> str:
    rate, peak = one["half_rate_rps"], one["throughput_rps"]
    return f"{rate:,.0f}/s" + (f", {rate / peak:.0%} of the peak" if peak else "")


def _inside(found: Results) -> Measured:
    """CPU outside of native kernels, from the profile by library."""
    serve = found.get("serve", {})
    libraries = serve.get("where", {}).get("libraries")
    if not libraries:
        return None
    cpu = serve["cpu_ms_per_request"]
    kernels = sum(libraries.get(name, 0.0) for name in KERNELS)
    outside, without = cpu * (1 - kernels - libraries.get("NumPy", 0.0)), cpu * (1 - kernels)
    return f"{outside:.2f} ms of {cpu:.2f}; with NumPy {without:.2f}", outside < 1.5


def _lowest(name: str, found: Results) -> Measured:
    one = found.get("serve", {}).get("lowest_rungs", {}).get(name)
    return (f"{one['throughput_rps']:,.0f}/s", one["throughput_rps"] >= 3000) if one else None


def _starts(found: Results) -> Measured:
    starts = found.get("serve", {}).get("starts_s")
    return (f"{max(starts):.1f} s, slowest of {len(starts)}", max(starts) < 5) if starts else None


def _second_worker(found: Results) -> Measured:
    second = found.get("serve", {}).get("second_worker")
    if not second:
        return None
    added = second["adds_pss_mib"] * 1.048576  # MB: the aim is decimal
    return f"{added:.0f} MB", added < 100


def _answered(found: Results) -> Measured:
    share = found.get("serve", {}).get("overload", {}).get("share_ok")
    return None if share is None else (f"{share:.1%}", share >= 0.95)


def _over_unloaded(found: Results) -> Measured:
    times = found.get("serve", {}).get("overload", {}).get("p99_over_unloaded")
    return None if times is None else (f"{times:.2f} ×", times <= 2)


def _rank(found: Results) -> dict[str, Any] | None:
    rank = found.get("rank")
    return rank if rank and rank["workload"]["rows"] == REFERENCE_ROWS else None


def _rank_ms(found: Results) -> Measured:
    if (rank := _rank(found)) is None:
        return None
    own, plain = rank["graphs"]["bundle"]["ms"], rank["graphs"]["plain"]["ms"]
    return f"{_interval(own, 'ms')}; the plain export {plain['median']:.2f} ms", own["median"] < 2


def _same_order(found: Results) -> Measured:
    if (rank := _rank(found)) is None:
        return None
    agrees = rank["agreement"]["bundle"]
    same = agrees["overlap"] >= 0.98 and agrees["ndcg_loss"] <= 0.005
    return f"{agrees['overlap']:.2%}, NDCG lower by {agrees['ndcg_loss']:.3%}", same


def _nearest(found: Results) -> Measured:
    for one in found.get("retrieve", {}).get("nearest", []):
        if one["items"] == REFERENCE_ITEMS:
            ms, recall = one["contestants"]["ours"]["ms"], one["contestants"]["ours"]["recall_at_200"]
            return f"{_interval(ms, 'ms')} at {recall:.4f}", ms["median"] < 0.3 and recall >= 0.99
    return None


AIMS: list[tuple[str, str, Callable[[Results], Measured]]] = [
    *(
        (f"throughput against {NAMES[name]}, same core", f"≥ {least:g} ×", partial(_ratio, name))
        for name, least in RATIO_AIMS.items()
    ),
    ("p50 at half of the peak", "< 5 ms", partial(_at_half, "p50", 5.0)),
    ("p99 at half of the peak", "< 12 ms", partial(_at_half, "p99", 12.0)),
    ("CPU a request outside of native kernels", "< 1.5 ms", _inside),
    (f"DCN-V2 over {REFERENCE_ROWS} rows, one thread", "< 2 ms", _rank_ms),
    ("the same top 50 as the plain export", "≥ 98 %, NDCG within 0.5 %", _same_order),
    (f"nearest 200 of {REFERENCE_ITEMS:,}", "< 0.3 ms at recall 0.99", _nearest),
    ("answers of the rung `cached`, one core", "≥ 3,000/s", partial(_lowest, "cached")),
    ("answers of the rung `popularity`, one core", "≥ 3,000/s", partial(_lowest, "popularity")),
    ("start of the Bento to the first answer", "< 5 s", _starts),
    ("memory of a second worker (PSS)", "< 100 MB", _second_worker),
    ("3 × peak: answered with 200", "≥ 95 %", _answered),
    ("3 × peak: p99 over its unloaded figure", "≤ 2 ×", _over_unloaded),
]


def parts(found: Results, pictures: Path) -> str:
    """The ranker and the index by themselves."""
    lines = []
    if rank := found.get("rank"):
        lines += ["| DCN-V2, 500 rows, one thread | ms | CPU against the plain | same top 50 |", "|---|---|---|---|"]
        for name, one in rank["graphs"].items():
            agrees = rank["agreement"].get(name)
            same = f"{agrees['overlap']:.2%}" if agrees else ""
            times = f"{one['times_the_plain']['median']:.2f} × faster" if agrees else ""
            lines.append(f"| {name} | {_interval(one['ms'], '')} | {times} | {same} |")
        lines.append("")
    for one in found.get("retrieve", {}).get("nearest", []):
        lines += [f"| nearest 200 of {one['items']:,} | CPU ms | recall@200 | built in |", "|---|---|---|---|"]
        for name, figure in one["contestants"].items():
            built = f"{figure['build_s']:.0f} s"
            lines.append(f"| {name} | {_interval(figure['ms'], '')} | {figure['recall_at_200']:.4f} | {built} |")
        lines.append("")
    if batch := found.get("batch"):
        lines += ["| `batch run`, 50 items a user | users/s |", "|---|---|"]
        lines += [f"| {one['processes']} processes | {one['users_per_s']:,.0f} |" for one in batch["runs"]]
    return "\n".join(lines).rstrip() + "\n" if lines else ""


def peers(found: Results, pictures: Path) -> str:
    """Side by side."""
    serve = found.get("serve")
    if not serve:
        return ""
    lines = [
        "| | requests/s | ours ÷ theirs | p50 / p99 at half of its peak | p50 / p99, one client | CPU a request |"
        " memory | errors |",
        "|---|---|---|---|---|---|---|---|",
        _peer_line("**this service**", serve),
    ]
    for name, one in serve["peers"].items():
        if "not_installed" not in one:
            lines.append(_peer_line(NAMES.get(name, name), one))
    plan, workload = serve["plan"], serve["workload"]
    lines += [
        "",
        f"{plan['pairs']} rounds of {plan['seconds']:g} s, {plan['clients']} clients, {workload['items']:,} items,"
        f" {workload['users']:,} users. By rung, of our answers at the peak:"
        f" {_shares(serve['rungs'])}; at half of it: {_shares(serve.get('half_rungs', {})) or 'not counted'}."
        f" The generator was late by at most {serve['generator_late_p99_ms']:g} ms (p99).",
    ]
    return "\n".join(lines) + "\n"


def _peer_line(name: str, one: dict[str, Any]) -> str:
    times = _interval(one["ratio_interval"], "×") if "ratio_interval" in one else ""
    return (
        f"| {name} | {one['throughput_rps']:,.0f} | {times} | {_ms(one['p50_ms'])} / {_ms(one['p99_ms'])}"
        f" at {_share_of_peak(one)} | {_ms(one['alone_p50_ms'])} / {_ms(one['alone_p99_ms'])} |"
        f" {_ms(one['cpu_ms_per_request'])} | {one['pss_mib']:,.0f} MiB | {one['errors']} |"
    )


def overload(found: Results, pictures: Path) -> str:
    """More than there is room for."""
    serve = found.get("serve", {})
    if "overload" not in serve:
        return ""
    lines = ["| load | requests/s | 200 | p50 | p99 | p99.9 | by rung |", "|---|---|---|---|---|---|---|"]
    named = (
        ("unloaded", "a tenth of the peak"),
        ("half_constant", "half, evenly spaced"),
        ("overload", "three times the peak"),
    )
    for key, name in named:
        one = serve[key]
        p = one["latency_ms"]
        lines.append(
            f"| {name} | {one['rate']:,.0f} | {one['share_ok']:.2%} | {_ms(p['p50'])} | {_ms(p['p99'])} |"
            f" {_ms(p['p99.9'])} | {_shares(one['rungs'])} |"
        )
    for name, one in serve.get("lowest_rungs", {}).items():
        lines.append(
            f"| rung `{name}` alone, closed loop | {one['throughput_rps']:,.0f} | | | {_ms(one['p99_ms'])} | |"
            f" {_shares(one['rungs'])} |"
        )
    return "\n".join(lines) + "\n"


def where(found: Results, pictures: Path) -> str:
    """Stages, libraries, the flame graph."""
    serve = found.get("serve")
    if not serve:
        return ""
    stages = list(serve["stages_ms"].items())
    lines = [
        "Mean of each stage, ms of the wall (`rank` includes `rows`):\n",
        "| " + " | ".join(name for name, _ in stages) + " |",
        "|" + "---|" * len(stages),
        "| " + " | ".join(f"{ms:.2f}" for _, ms in stages) + " |",
    ]
    profile = serve.get("where", {})
    if libraries := profile.get("libraries"):
        cpu = serve["cpu_ms_per_request"]
        lines += ["", "| part of the process | share | CPU a request |", "|---|---|---|"]
        lines += [f"| {part} | {share:.0%} | {share * cpu:.2f} ms |" for part, share in libraries.items()]
    if stacks := profile.get("stacks"):
        flame(stacks, pictures / "flame.svg")
        lines += ["", "![Flame graph of the worker under load](pictures/flame.svg)"]
    rows = serve["processes"]
    lines += ["", "| process | CPU | PSS | peak resident |", "|---|---|---|---|"]
    lines += [
        f"| `{row['process']}` | {row['cpu_s']:.1f} s | {row['pss_mib']:.0f} MiB | {row['peak_rss_mib']:.0f} MiB |"
        for row in rows
    ]
    return "\n".join(lines) + "\n"


def growth(found: Results, pictures: Path) -> str:
    """A table and a plot for each."""
    parts = []
    for name, columns in GROWN.items():
        document = found.get(f"growth-{name}")
        if not document:
            continue
        steps = document["steps"]
        lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
        lines += ["| " + " | ".join(_cell(get(step)) for get in columns.values()) + " |" for step in steps]
        grown(name, steps, pictures / f"growth-{name}.svg")
        parts.append("\n".join([f"![Growth of {name}](pictures/growth-{name}.svg)", "", *lines]))
    return "\n\n".join(parts) + "\n" if parts else ""


def _of(*keys: str) -> Callable[[dict[str, Any]], Any]:
    def get(step: Any) -> Any:
        for key in keys:
            step = step.get(key) if isinstance(step, dict) else None
        return step

    return get


GROWN: dict[str, dict[str, Callable[[dict[str, Any]], Any]]] = {
    "items": {
        "items": _of("items"),
        "requests/s": _of("throughput_rps"),
        "FastAPI": _of("peer", "throughput_rps"),
        "ours ÷ theirs": _of("peer", "ratio"),
        "p50 ms": _of("p50_ms"),
        "p99 ms": _of("p99_ms"),
        "CPU ms": _of("cpu_ms_per_request"),
        "PSS MiB": _of("pss_mib"),
        "FastAPI PSS": _of("peer", "pss_mib"),
        "start s": _of("start_s"),
    },
    "candidates": {
        "candidates": _of("candidates"),
        "CPU ms": _of("ours_cpu_ms"),
        "peers' funnel": _of("peer_cpu_ms"),
        "theirs ÷ ours": _of("ratio", "median"),
    },
    "clients": {
        "clients": _of("clients"),
        "full answers/s": _of("streamrec", "full_rps"),
        "of any rung": _of("streamrec", "rps"),
        "FastAPI": _of("fastapi", "rps"),
        "p50 ms": _of("streamrec", "p50_ms"),
        "p99 ms": _of("streamrec", "p99_ms"),
        "FastAPI p99": _of("fastapi", "p99_ms"),
        "by rung": lambda step: _shares(step["streamrec"]["rungs"]),
    },
}


def cores(found: Results, pictures: Path) -> str:
    """What the reference load takes."""
    serve = found.get("serve")
    if not serve or not serve["throughput_rps"]:
        return ""
    need = math.ceil(TARGET_RPS / serve["throughput_rps"])
    half = math.ceil(TARGET_RPS / (serve["throughput_rps"] / 2))
    lines = ["| | cores at the peak | at half of it, where the latencies above hold |", "|---|---|---|"]
    lines.append(f"| **this service** | {need:,} | {half:,} |")
    for name, one in serve["peers"].items():
        if one.get("throughput_rps"):
            rps = one["throughput_rps"]
            lines.append(
                f"| {NAMES.get(name, name)} | {math.ceil(TARGET_RPS / rps):,} | {math.ceil(2 * TARGET_RPS / rps):,} |"
            )
    return "\n".join(lines) + "\n"


def gpu(found: Results, pictures: Path) -> str:
    """The distributed topology's ranking."""
    document = found.get("gpu")
    if not document:
        return NO_GPU
    lines = ["| | requests/s, batches of 32 | p50 | p99 |", "|---|---|---|---|"]
    for name, one in document["in_process"].items():
        lines.append(
            f"| {name}, in process | {one['requests_per_s']:,.0f} | {_ms(one['p50_ms'])} | {_ms(one['p99_ms'])} |"
        )
    for one in document["service"]:
        p = one["latency_ms"]
        name = f"`Ranking` over its socket at {one['rate']:,.0f}/s"
        lines.append(f"| {name} | {one['answered_per_s']:,.0f} | {_ms(p['p50'])} | {_ms(p['p99'])} |")
    return f"Device: {document['device']}.\n\n" + "\n".join(lines) + "\n"


SECTIONS: dict[str, Callable[[Results, Path], str]] = {
    "aims": aims,
    "peers": peers,
    "overload": overload,
    "where": where,
    "parts": parts,
    "growth": growth,
    "cores": cores,
    "gpu": gpu,
}


def _ms(value: float | None) -> str:
    return "" if value is None else f"{value:.2f} ms" if value < 10 else f"{value:,.0f} ms"


def _interval(spread: Mapping[str, float], unit: str) -> str:
    return f"{spread['median']:.2f} {unit} ({spread['low']:.2f}–{spread['high']:.2f})"


def _shares(counts: Mapping[str, int]) -> str:
    total = sum(counts.values())
    ordered = sorted(counts.items(), key=lambda item: -item[1])
    return ", ".join(f"`{name}` {n / total:.1%}" for name, n in ordered) if total else ""


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.2f}"
    return f"{value:,}" if isinstance(value, int) else str(value or "")


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(), results()))
