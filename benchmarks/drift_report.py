"""From benchmarks/results/drift.json to tables and picture of docs/monitoring.md: `python -m benchmarks.drift_report`.

A figure is typed by nobody.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.drift_worlds import PLANTS
from benchmarks.sections import replaced

ROOT = Path(__file__).resolve().parents[1]
RESULT = ROOT / "benchmarks" / "results" / "drift.json"
PAGE = ROOT / "docs" / "monitoring.md"
PICTURE = ROOT / "docs" / "pictures" / "drift-delay.svg"
LOGS = ("retail", "world")
ENGINES = {"scipy": "SciPy", "alibi": "alibi-detect"}
PER_SLATE = 10

Study = Mapping[str, Any]


def sections(study: Study) -> dict[str, str]:
    return {"drift-windows": windows(study), "drift-delays": delays(study), "drift-users": by_users(study)}


def by_users(study: Study) -> str:
    """Of windows made of whole users, how many alarm: all rows, one row a user."""
    runs = [(study[log]["log"], study[log]["users"]) for log in LOGS if "users" in study.get(log, {})]
    return "; ".join(
        f"{r['rows']} with all rows and {r['one row a user']} with one row a user ({log})" for log, r in runs
    )


def windows(study: Study) -> str:
    runs = [(log, engine) for log in LOGS for engine in ENGINES if engine in study.get(log, {})]
    head = " | ".join(f"{study[log]['log']}, {ENGINES[engine]}" for log, engine in runs)
    lines = [f"| | {head} |", "|---" * (len(runs) + 1) + "|"]

    def row(name: str, cell: Any) -> None:
        lines.append(f"| {name} | " + " | ".join(cell(study[log][engine]) for log, engine in runs) + " |")

    row("windows without drift", lambda r: str(r["windows"]))
    row("**raise an alarm** (allowed)", lambda r: f"**{r['false_alarms']}** ({r['bound']})")
    row("tests a window", lambda r: str(r["tests"]))
    for plant in PLANTS:
        row(f"found: {plant}", lambda r, p=plant: f"{r['found'][p] / r['windows']:.1%}" if p in r["found"] else "")
    row("CPU s a window, with its plants", lambda r: f"{r['cpu_s_per_window']:.2f}")
    return "\n" + "\n".join(lines) + "\n"


def delays(study: Study) -> str:
    lines = [
        "| log | drift | watched | detector | found | rows to the alarm, median (p90) | in requests "
        "| rows between false alarms |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for log, found in _online(study):
        median, p90 = (_count(found[key]) for key in ("median_rows", "p90_rows"))
        requests = "" if log == "retail" or found["median_rows"] is None else _count(found["median_rows"] / PER_SLATE)
        between = found["rows_between_false_alarms"]
        clean = _count(between) if between else f"over {_count(found['clean_rows'])}"
        lines.append(
            f"| {study[log]['log']} | {found['drift']} | {found['watched']} | `{found['detector']}` "
            f"| {found['found']} of {found['streams']} | {median} ({p90}) | {requests} | {clean} |"
        )
    return "\n" + "\n".join(lines) + "\n"


def _online(study: Study) -> list[tuple[str, Mapping[str, Any]]]:
    return [
        (log, found)
        for log in LOGS
        for part in ("online", "online-alibi")
        for found in study.get(log, {}).get(part, [])
    ]


def _count(value: float | None) -> str:
    return "never" if value is None else f"{value:,.0f}"


def draw(study: Study, target: Path) -> None:
    """Rows to the alarm, median and p90, of each drift and detector."""
    from benchmarks.pictures import OURS, PEER, plt

    colors = {"world": OURS, "retail": PEER}
    rows = [(log, f) for log, f in _online(study) if f["median_rows"] is not None][::-1]
    figure, axes = plt.subplots(figsize=(7.2, 0.24 * len(rows) + 0.9))
    for at, (log, found) in enumerate(rows):
        color = colors[log]
        furthest = found["p90_rows"] or found["longest"]
        axes.plot([found["median_rows"], furthest], [at, at], color=color, lw=1.5)
        axes.plot([found["median_rows"]], [at], "o", ms=4, color=color)
    axes.set_yticks(range(len(rows)), [f"{f['drift']}: {f['detector']}" for _, f in rows])
    axes.axvline(3_000, color="0.6", lw=0.8, ls="--")
    axes.set(
        xscale="log",
        xlabel="rows to the alarm: median, to 90th percentile (dashed: a batch window)",
    )
    for log, color in colors.items():
        if any(log == which for which, _ in rows):
            axes.plot([], [], "o-", ms=4, color=color, label=study[log]["log"])
    axes.legend(frameon=False, loc="lower right")
    figure.tight_layout()
    figure.savefig(target, metadata={"Date": None})
    plt.close(figure)


def page(text: str, study: Study) -> str:
    return replaced(text, sections(study))


def main() -> None:
    study = json.loads(RESULT.read_text())
    draw(study, PICTURE)
    PAGE.write_text(page(PAGE.read_text(), study))


if __name__ == "__main__":
    main()
