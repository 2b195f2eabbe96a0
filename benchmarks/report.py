"""From the JSON of the runs to the tables and pictures of docs/performance.md: `python -m benchmarks.report`.

Reads benchmarks/results/*.json, what is there of them; writes what stands between the marks of the page, and the
pictures. A figure is typed by nobody.
"""

import json
import math
from collections.abc import Callable, Mapping
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
REFERENCE_ITEMS = 200_000
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
    """Against what was wanted: each aim once, hit or missed."""
    rows: list[tuple[str, str, str, bool | None]] = []
    serve = found.get("serve")
    if serve:
        for name, least in RATIO_AIMS.items():
            one = serve["peers"].get(name, {})
            what = f"throughput against {NAMES[name]}, same core"
            if "ratio" in one:
                rows.append((what, f"≥ {least:g} ×", _interval(one["ratio_interval"], "×"), one["ratio"] >= least))
        for percentile, most in (("p50", 5), ("p99", 12)):
            ms = serve[f"{percentile}_ms"]
            rows.append((f"{percentile} at half of the peak", f"< {most} ms", _ms(ms), ms is not None and ms < most))
        rows += _inside(serve)
    for name, section in (("rank", _rank_aims), ("retrieve", _retrieve_aims)):
        if name in found:
            rows += section(found[name])
    if serve:
        rows += _extras(serve)
    if not rows:
        return ""
    lines = ["| | aim | measured | |", "|---|---|---|---|"]
    verdict = {True: "hit", False: "**missed**", None: ""}
    lines += [f"| {what} | {aim} | {measured} | {verdict[hit]} |" for what, aim, measured, hit in rows]
    return "\n".join(lines) + "\n"


Row = tuple[str, str, str, bool | None]


def _inside(serve: dict[str, Any]) -> list[Row]:
    """CPU outside of native kernels, from the profile by library."""
    libraries = serve.get("where", {}).get("libraries")
    if not libraries:
        return []
    cpu = serve["cpu_ms_per_request"]
    kernels = sum(libraries.get(name, 0.0) for name in KERNELS)
    outside, without = cpu * (1 - kernels - libraries.get("NumPy", 0.0)), cpu * (1 - kernels)
    measured = f"{outside:.2f} ms of {cpu:.2f}; with NumPy {without:.2f}"
    return [("CPU a request outside of native kernels", "< 1.5 ms", measured, outside < 1.5)]


def _extras(serve: dict[str, Any]) -> list[Row]:
    rows: list[Row] = []
    for name in ("cached", "popularity"):
        if one := serve.get("lowest_rungs", {}).get(name):
            rps = one["throughput_rps"]
            rows.append((f"answers of the rung `{name}`, one core", "≥ 3,000/s", f"{rps:,.0f}/s", rps >= 3000))
    if starts := serve.get("starts_s"):
        rows.append(
            ("start of the Bento to the first answer", "< 5 s", f"{max(starts):.1f} s, slowest of 3", max(starts) < 5)
        )
    if second := serve.get("second_worker"):
        added = second["adds_pss_mib"]
        rows.append(("memory of a second worker (PSS)", "< 100 MB", f"{added:.0f} MiB", added * 1.048576 < 100))
    if overload := serve.get("overload"):
        share, times = overload["share_ok"], overload["p99_over_unloaded"]
        rows.append(("3 × peak: answered with 200", "≥ 95 %", f"{share:.1%}", share >= 0.95))
        if times is not None:
            rows.append(("3 × peak: p99 over its unloaded figure", "≤ 2 ×", f"{times:.2f} ×", times <= 2))
    return rows


def _rank_aims(rank: dict[str, Any]) -> list[Row]:
    own, plain = rank["graphs"]["bundle"], rank["graphs"]["plain"]
    ms = own["ms"]["median"]
    agrees = rank["agreement"]["bundle"]
    measured = f"{_interval(own['ms'], 'ms')}; the plain export {plain['ms']['median']:.2f} ms"
    order = f"{agrees['overlap']:.2%}, NDCG lower by {agrees['ndcg_loss']:.3%}"
    same = agrees["overlap"] >= 0.98 and agrees["ndcg_loss"] <= 0.005
    return [
        (f"DCN-V2 over {rank['workload']['rows']} rows, one thread", "< 2 ms", measured, ms < 2),
        ("the same top 50 as the plain export", "≥ 98 %, NDCG within 0.5 %", order, same),
    ]


def _retrieve_aims(retrieve: dict[str, Any]) -> list[Row]:
    rows: list[Row] = []
    for one in retrieve["nearest"]:
        if one["items"] == REFERENCE_ITEMS:
            own = one["contestants"]["ours"]
            recall = own["recall_at_200"]
            hit = own["ms"]["median"] < 0.3 and recall >= 0.99
            rows.append(
                (
                    "nearest 200 of 200,000",
                    "< 0.3 ms at recall 0.99",
                    f"{_interval(own['ms'], 'ms')} at {recall:.4f}",
                    hit,
                )
            )
    return rows


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
        f" {_shares(serve['rungs'])}. The generator was late by at most"
        f" {serve['generator_late_p99_ms']:g} ms (p99).",
    ]
    return "\n".join(lines) + "\n"


def _peer_line(name: str, one: dict[str, Any]) -> str:
    times = _interval(one["ratio_interval"], "×") if "ratio_interval" in one else ""
    return (
        f"| {name} | {one['throughput_rps']:,.0f} | {times} | {_ms(one['p50_ms'])} / {_ms(one['p99_ms'])} |"
        f" {_ms(one['alone_p50_ms'])} / {_ms(one['alone_p99_ms'])} | {_ms(one['cpu_ms_per_request'])} |"
        f" {one['pss_mib']:,.0f} MiB | {one['errors']} |"
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
