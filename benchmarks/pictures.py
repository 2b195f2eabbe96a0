"""The pictures of docs/performance.md as small SVG files."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("svg")
mpl.rcParams |= {"svg.fonttype": "none", "svg.hashsalt": "streamrec", "font.size": 8, "axes.spines.top": False}
mpl.rcParams |= {"axes.spines.right": False}

import matplotlib.pyplot as plt  # noqa: E402 - after its backend was chosen

OURS, OTHER, PEER = "#1f6f8b", "#8fb8c7", "#c58b3a"
NARROW = 0.004  # share of the width below which a frame is not drawn


def flame(stacks: Mapping[str, int], target: Path) -> None:
    """Time from left to right, callers above what they call. Wide: costs much."""
    total = sum(stacks.values())
    width: dict[tuple[str, ...], int] = {}
    for stack, n in stacks.items():
        frames = tuple(stack.split(";"))
        for depth in range(1, len(frames) + 1):
            width[frames[:depth]] = width.get(frames[:depth], 0) + n
    shown = {path: n for path, n in width.items() if n >= NARROW * total}
    depth = max(map(len, shown), default=1)
    figure, axes = plt.subplots(figsize=(10, 0.19 * depth + 0.4))
    start: dict[tuple[str, ...], float] = {}
    free: dict[tuple[str, ...], float] = {(): 0.0}
    for path in sorted(shown, key=lambda p: (len(p), p)):
        x = free[path[:-1]]
        free[path[:-1]] = x + shown[path] / total
        start[path] = free[path] = x
        _frame(axes, path[-1], x, shown[path] / total, len(path))
    axes.set(xlim=(0, 1), ylim=(depth + 1, 0.5))
    axes.axis("off")
    figure.savefig(target, bbox_inches="tight", metadata={"Date": None})
    plt.close(figure)


def _frame(axes: Any, name: str, x: float, share: float, level: int) -> None:
    shade = 0.55 + 0.4 * ((sum(map(ord, name)) % 97) / 97)
    native = any(word in name for word in ("onnxruntime", "faiss"))
    color = (0.35, shade * 0.8, 0.75) if native else (0.95, shade, 0.45)
    axes.barh(level, share, left=x, height=0.95, color=color, edgecolor="white", linewidth=0.3)
    fits = int(share * 190)
    if fits >= 4:
        label = name if len(name) <= fits else name[: fits - 1] + "…"
        axes.text(x + 0.002, level, label, va="center", ha="left", fontsize=5.5, clip_on=True)


def grown(name: str, steps: Sequence[Mapping[str, Any]], target: Path) -> None:
    """One growth: what it does to throughput or cost, and to latency or memory."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(8, 2.6))
    x = [step[name] for step in steps]

    def line(axes: Any, label: str, color: str, values: Sequence[float | None]) -> None:
        known = [(a, b) for a, b in zip(x, values, strict=True) if b is not None]
        axes.plot([a for a, _ in known], [b for _, b in known], "o-", ms=3, lw=1.2, label=label, color=color)

    def each(*keys: str) -> list[float | None]:
        return [_reach(step, keys) for step in steps]

    if name == "items":
        line(left, "this service", OURS, each("throughput_rps"))
        line(left, "FastAPI", PEER, each("peer", "throughput_rps"))
        line(right, "this service", OURS, each("pss_mib"))
        line(right, "FastAPI", PEER, each("peer", "pss_mib"))
        left.set(ylabel="requests/s, one core")
        right.set(ylabel="PSS, MiB")
    elif name == "clients":
        line(left, "this service, full", OURS, each("streamrec", "full_rps"))
        line(left, "this service, any rung", OTHER, each("streamrec", "rps"))
        line(left, "FastAPI", PEER, each("fastapi", "rps"))
        line(right, "this service", OURS, each("streamrec", "p99_ms"))
        line(right, "FastAPI", PEER, each("fastapi", "p99_ms"))
        left.set(ylabel="requests/s, one core")
        right.set(ylabel="p99, ms", yscale="log")
    else:
        line(left, "this service", OURS, each("ours_cpu_ms"))
        line(left, "the peers' funnel", PEER, each("peer_cpu_ms"))
        line(right, "theirs ÷ ours", OURS, each("ratio", "median"))
        left.set(ylabel="CPU a request, ms")
        right.set(ylabel="ratio")
    for axes in (left, right):
        axes.set(xscale="log", xlabel=name)
        axes.set_xticks(x, [f"{n / 1e6:g}M" if n >= 1e6 else f"{n / 1e3:g}k" if n >= 1e3 else str(n) for n in x])
        axes.minorticks_off()
        axes.set_ylim(bottom=0 if axes.get_yscale() == "linear" else None)
        axes.legend(frameon=False)
    figure.tight_layout()
    figure.savefig(target, metadata={"Date": None})
    plt.close(figure)


def _reach(step: Any, keys: Sequence[str]) -> float | None:
    for key in keys:
        step = step.get(key) if isinstance(step, Mapping) else None
    return step
