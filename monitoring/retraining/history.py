"""Trainings that a rule asked for, as one document of the control database: budget and cool-down outlive a restart."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

import psutil

from registry.control.documents import Documents, change

DOCUMENT = "retraining"
KEPT = 200

Run = dict[
    str, Any
]  # id, action, state (running, done, failed), began_us, ended_us, why, steps, cpu_s, problem, tag, …


def runs_of(store: Documents) -> list[Run]:
    """Oldest first. One whose process is gone has failed, whatever its document says."""
    return [_mended(run) for run in store.read(DOCUMENT)[1].get("runs", ())]


def begin(store: Documents, run: Run, at_most_running: int = 1) -> bool:
    """Write down that it begins; False: another one is under way."""
    begun = True

    def step(document: dict[str, Any]) -> dict[str, Any]:
        nonlocal begun
        runs = [_mended(r) for r in document.get("runs", ())]
        begun = sum(r["state"] == "running" for r in runs) < at_most_running
        return {"runs": [*runs, _owned(run)][-KEPT:]} if begun else {"runs": runs}

    change(store, DOCUMENT, step)
    return begun


def update(store: Documents, run_id: str, values: Mapping[str, Any]) -> None:
    def step(document: dict[str, Any]) -> dict[str, Any]:
        runs = document.get("runs", ())
        return {"runs": [{**run, **values} if run["id"] == run_id else run for run in runs]}

    change(store, DOCUMENT, step)


def forgive(store: Documents) -> int:
    """Failed runs count no longer against the policy; returns how many."""
    n = 0

    def step(document: dict[str, Any]) -> dict[str, Any]:
        nonlocal n
        runs = [_mended(r) for r in document.get("runs", ())]
        n = sum(run["state"] == "failed" for run in runs)
        return {"runs": [{**run, "state": "forgiven"} if run["state"] == "failed" else run for run in runs]}

    change(store, DOCUMENT, step)
    return n


def _owned(run: Run) -> Run:
    return {**run, "pid": os.getpid(), "started": psutil.Process().create_time()}


def _mended(run: Run) -> Run:
    if run["state"] != "running" or _alive(run):
        return run
    return {**run, "state": "failed", "problem": "its process has gone", "ended_us": run["began_us"]}


def _alive(run: Mapping[str, Any]) -> bool:
    try:
        return abs(psutil.Process(int(run["pid"])).create_time() - float(run["started"])) < 1.0
    except (psutil.Error, KeyError, TypeError, ValueError):
        return False


def last(runs: Sequence[Run]) -> Run | None:
    return runs[-1] if runs else None
