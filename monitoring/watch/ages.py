"""Ages and runs as signals. Pure."""

from collections.abc import Mapping, Sequence

from monitoring.signals import Signal
from monitoring.watch.schema import Levels

HOUR_US = 3_600_000_000


def model_signal(bento: str, trained: int | str, levels: Levels, now_us: int) -> Signal:
    """`age.model` in hours. Past `model_checked_h` the cause says so, past `model_h` it is a breach. trained: when, or
    why that is not known."""
    name, limit = "age.model", levels.model_h
    if isinstance(trained, str):
        return Signal(name, bento, "inconclusive", now_us, threshold=limit, cause=trained or "nobody says when")
    hours = max(0.0, (now_us - trained) / HOUR_US)
    words = f"trained {hours:.1f} h ago"
    if hours > limit:
        since = trained + int(limit * HOUR_US)
        return Signal(name, bento, "breach", now_us, hours, limit, since, f"{words}, at most {limit:g} h is the aim")
    if hours > levels.model_checked_h:
        words += f": over {levels.model_checked_h:g} h, so streamrec monitor retrain-check is asked"
    return Signal(name, bento, "ok", now_us, hours, limit, cause=words)


def batch_lists_signal(published_us: int | None, clock_us: int | None, levels: Levels, now_us: int) -> Signal:
    """`age.batch_lists` in hours, on the data set's clock. None: nobody asked lately, or no list was published."""
    name, limit = "age.batch_lists", levels.batch_lists_h
    if clock_us is None:
        return Signal(name, "", "inconclusive", now_us, threshold=limit, cause="nobody asked within 24 h")
    if published_us is None:
        cause = "none of those who asked lately has a published list"
        return Signal(name, "", "inconclusive", now_us, threshold=limit, cause=cause)
    hours = max(0.0, (clock_us - published_us) / HOUR_US)
    if hours > limit:
        since = now_us - int((hours - limit) * HOUR_US)
        cause = f"the published lists are {hours:.1f} h old, at most {limit:g} h is the aim"
        return Signal(name, "", "breach", now_us, hours, limit, since, cause)
    return Signal(name, "", "ok", now_us, hours, limit, cause=f"{hours:.1f} h old")


def training_signal(last: tuple[str, str, int] | None, runs: Sequence[Mapping[str, object]], now_us: int) -> Signal:
    """`run.training`: in breach while the last training that ended has failed. last: (run id, status, begun) of the
    newest run of the registry; runs: of the retraining history, which also knows of those that never came so far."""
    name = "run.training"
    ended = [run for run in runs if run.get("state") in ("done", "failed")]
    if ended and ended[-1]["state"] == "failed" and int(str(ended[-1]["began_us"])) >= (last[2] if last else 0):
        cause = f"retraining {ended[-1]['id']} failed: {ended[-1].get('problem', '')}"
        return Signal(name, "", "breach", now_us, since=int(str(ended[-1]["began_us"])), cause=cause)
    if last is None:
        return Signal(name, "", "inconclusive", now_us, cause="no training was ever begun here")
    run_id, status, began_us = last
    if status in ("FAILED", "KILLED"):
        cause = f"training run {run_id} ended as {status}"
        return Signal(name, "", "breach", now_us, since=began_us, cause=cause)
    return Signal(name, "", "ok", now_us, cause=f"run {run_id} is {status}")
