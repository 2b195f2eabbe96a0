"""`release status`: champion, releases, and what each metric says, as one document."""

import json
from pathlib import Path
from typing import Any

from contracts.measurements import Measured, Snapshot
from contracts.routing import Target
from contracts.settings import Settings
from registry.control.store import ControlStore
from registry.releases.progress import step_minutes
from registry.releases.values import Release

REPORT = "controller.json"  # in home/control: what the controller that leads has to say
STALE_US = 10 * 1_000_000


def status(store: ControlStore, settings: Settings, *, now_us: int, limit: int = 20) -> dict[str, Any]:
    """
    Raises:
        Unreachable: the control database does not answer.
    """
    state = store.load()
    report = read_report(settings.home)
    fresh = abs(now_us - int(report.get("at_us", 0))) < STALE_US
    problems = [f"{part}: {problem}" for part, problem in report.get("problems", {}).items()] if fresh else []
    if not fresh:
        problems.append("no controller is at work here: nothing advances (streamrec up)")
    live = _snapshot(report.get("evidence"))
    releases = store.releases(limit)
    if state.release and state.release.id not in {r.id for r in releases}:
        releases = [state.release, *releases][:limit]
    return {
        "champion": state.champion.bento if state.champion else None,
        "rules": state.champion.rules if state.champion else None,
        "previous": state.previous.bento if state.previous else None,
        "warm": [w.target.bento for w in state.warm],
        "releases": [
            _release(r, state.champion, _evidence(store, r, live), report.get("next", "") if fresh else "", now_us)
            for r in releases
        ],
        "controller": {key: report.get(key) for key in ("holder", "epoch", "until_us", "url")} if fresh else None,
        "table": report.get("table"),
        "ready": report.get("ready", {}) if fresh else {},
        "problems": problems,
    }


def read_report(home: Path) -> dict[str, Any]:
    """Empty when there is none that can be read."""
    try:
        document = json.loads((home / "control" / REPORT).read_text())
    except (OSError, ValueError):
        return {}
    return document if isinstance(document, dict) else {}


def write_report(home: Path, document: dict[str, Any]) -> None:
    path = home / "control" / REPORT
    part = path.with_suffix(".part")
    part.write_text(json.dumps(document, allow_nan=False))
    part.replace(path)


def weight(release: Release, champion: Target | None) -> float:
    """Percent of the eligible units on the candidate; of a promoted one only while it is still the champion."""
    if release.state == "promoted":
        return 100.0 if release.candidate == champion else 0.0
    step = release.current
    return step.weight if release.active and step and step.kind != "shadow" else 0.0


def _release(
    release: Release, champion: Target | None, snapshot: Snapshot | None, next_: str, now_us: int
) -> dict[str, Any]:
    step = release.current
    return {
        "id": release.id,
        "kind": release.kind,
        "candidate": release.candidate.bento,
        "rules": release.candidate.rules,
        "against": release.champion.bento if release.champion else None,
        "state": release.state,
        "step": step.name if step else None,
        "weight": weight(release, champion),
        "shadow": step.weight if release.active and step and step.kind == "shadow" else 0.0,
        "policy": release.policy_text.label,
        "policy_sha256": release.policy_text.sha256,
        "hypothesis": release.hypothesis,
        "reason": release.reason,
        "metrics": _metrics(release, snapshot),
        "srm_p": snapshot.srm_p if snapshot else None,
        "rung_mix_p": snapshot.rung_mix_p if snapshot else None,
        "arms": {
            name: {"units": arm.units, "requests": arm.requests, "rungs": arm.rungs}
            for name, arm in (snapshot.arms if snapshot else {}).items()
        },
        "time_left": _time_left(release, now_us),
        "next": (next_ or release.reason) if release.active else "",
    }


def _metrics(release: Release, snapshot: Snapshot | None) -> list[dict[str, Any]]:
    """One row a metric that was judged or measured; the verdict is that of the last decision."""
    measured = snapshot.metrics if snapshot else {}
    verdicts = {v.name: v for v in release.verdicts}
    rows = []
    for name in dict.fromkeys([*verdicts, *measured]):
        figures = measured.get(name, Measured(name=name))
        word = verdicts.get(name)
        rows.append(
            {
                "name": name,
                "n": figures.n,
                "n_control": figures.n_control,
                "samples": figures.samples,
                "value": figures.value,
                "value_ci": figures.value_ci,
                "control": figures.control,
                "effect": figures.effect,
                "ci": figures.ci,
                "p": figures.p,
                "stratified_effect": figures.stratified_effect,
                "convention": figures.convention,
                "verdict": word.verdict if word else "inconclusive",
                "role": word.role if word else "report",
                "critical": word.critical if word else False,
                "reason": word.reason if word else (figures.problem or "not judged in this step"),
            }
        )
    return rows


def _evidence(store: ControlStore, release: Release, live: Snapshot | None) -> Snapshot | None:
    """What the controller has seen last, else what the last decision was made on."""
    if live is not None and live.release == release.id:
        return live
    for entry in reversed(store.history(release.id, 50)):
        if (found := _snapshot(entry.detail.get("evidence"))) is not None:
            return found
    return None


def _snapshot(document: Any) -> Snapshot | None:
    try:
        return Snapshot.model_validate(document) if document else None
    except ValueError:  # of another version of this code
        return None


def _time_left(release: Release, now_us: int) -> str:
    """Until the deadline of the step, for people."""
    step = release.current
    if step is None or release.state not in ("shadow", "canary", "ab"):
        return ""
    minutes = step.deadline_minutes - step_minutes(release, now_us)
    if minutes <= 0:
        return "over"
    return f"{int(minutes // 60)} h {int(minutes % 60)} min" if minutes >= 60 else f"{minutes:.0f} min"
