"""A training that a rule asked for: export, train, build, release, each through the command that a person would type.

Nothing here judges the result: it enters as challenger, and the gates of its release decide.
"""

import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from contracts.errors import StreamRecError
from monitoring.retraining import history
from monitoring.retraining.decide import Data, Ruling
from monitoring.watch.schema import Retraining
from registry.control.documents import Documents

ROOT = Path(__file__).resolve().parents[2]
FOLDER = Path("retraining")
LISTS = FOLDER / "lists.parquet"
EXPORTS = "export-"
LEFT_S = 86_400.0  # an export that is older was left by a process that was killed: no run lasts as long

# The words of a command → its JSON document.
Cli = Callable[[Sequence[str]], dict[str, Any]]


class CommandFailed(StreamRecError):
    """A command of the run ended with another code than 0. code: which."""

    def __init__(self, words: Sequence[str], code: int, said: str) -> None:
        super().__init__(f"`streamrec {' '.join(words)}` ended with {code}: {said}")
        self.code = code


def command_line(words: Sequence[str]) -> dict[str, Any]:
    """`streamrec WORDS --json`, beside us and at our priority.

    Raises:
        CommandFailed: it did not end with 0.
    """
    done = subprocess.run(
        [sys.executable, "-m", "cli", *words, "--json"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if done.returncode:
        lines = [line for line in done.stderr.strip().splitlines() if line.strip()]
        said = next((line for line in reversed(lines) if "error:" in line), lines[-1] if lines else "nothing")
        raise CommandFailed(words, done.returncode, said.strip()[:500])
    return dict(json.loads(done.stdout))


@contextmanager
def exports(home: Path) -> Iterator[Path]:
    """A folder for the data sets of one question, gone when it is answered and what came of it is done: a person's
    and the watch's never meet, and none is replaced while a training reads it. The rows that were trained on stay, as
    that training's snapshot."""
    folder = home.resolve() / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    for left in folder.glob(f"{EXPORTS}*"):
        if time.time() - left.stat().st_mtime > LEFT_S:
            shutil.rmtree(left, ignore_errors=True)
    mine = Path(tempfile.mkdtemp(prefix=EXPORTS, dir=folder))
    try:
        yield mine
    finally:
        shutil.rmtree(mine, ignore_errors=True)


def export(folder: Path, policy: Retraining, since: str | None, cli: Cli) -> tuple[Path, Data | str]:
    """What there is to learn: the service's own log as a data set in `folder`; or why it cannot be had.

    since: what counts as new, an ISO moment; the data set itself has all of the log.
    """
    target = folder / "data"
    words = ["data", "export", str(target)] + (["--base", str(policy.base)] if policy.base else [])
    try:
        done = cli(words)
        new = cli(["data", "export", str(folder / "new"), "--since", since]) if since else done
    except StreamRecError as error:
        return target, error.message
    return target, Data(int(new["events"]), int(new["impressions"]))


def act(
    store: Documents,
    ruling: Ruling,
    policy: Retraining,
    home: Path,
    data: Path,
    *,
    cli: Cli,
    clock_us: Callable[[], int],
    say: Callable[[str], None] = lambda _: None,
) -> history.Run:
    """Do what the ruling says, and write down each step as it ends. Returns the run, `done` or `failed`.

    Raises:
        StreamRecError: another run began meanwhile (`Refused` is the caller's word for it), or the store is away.
    """
    began_us = clock_us()
    run: history.Run = {
        "id": time.strftime("t-%Y%m%dT%H%M%S", time.gmtime(began_us / 1e6)),
        "action": ruling.action,
        "state": "running",
        "began_us": began_us,
        "ended_us": None,
        "why": ruling.why,
        "steps": {},
        "cpu_s": 0.0,
        "problem": "",
    }
    if not history.begin(store, run):
        raise StreamRecError("another retraining has begun", next_command="streamrec monitor retrain-check")
    cpu_s = _children_s()
    try:
        for name, words in _steps(ruling, policy, home, data, run):
            say(name)
            done = cli(words)
            run["steps"][name] = {key: done[key] for key in _KEPT[name] if key in done}
            history.update(store, run["id"], {"steps": run["steps"], "cpu_s": round(_children_s() - cpu_s, 1)})
        run["state"] = "done"
    except StreamRecError as error:
        run |= {"state": "failed", "problem": error.message}
    except BaseException:
        run |= {"state": "failed", "problem": "it was interrupted"}
        raise
    finally:
        run |= {"ended_us": clock_us(), "cpu_s": round(_children_s() - cpu_s, 1)}
        history.update(store, run["id"], run)
    return run


_KEPT: Mapping[str, Sequence[str]] = {
    "train": ("run_id", "models", "metrics", "seconds"),
    "build": ("tag", "models"),
    "release": ("release", "id", "candidate", "state"),
    "batch": ("rows", "published", "snapshot", "seconds"),
}


def _steps(ruling: Ruling, policy: Retraining, home: Path, data: Path, run: history.Run) -> Any:
    """(name, words of the command), one after the other: each may need what the one before gave."""
    if ruling.action == "batch":
        lists = str(home.resolve() / LISTS)
        yield "batch", ["batch", "run", "--data", str(data), "--publish", "--out", lists]
        return
    yield "train", ["train", "--data", str(data)]
    models = run["steps"]["train"]["models"]
    pins = [word for kind in ("retrieval", "ranking", "fallback") for word in (f"--{kind}", str(models[kind]))]
    yield "build", ["build", *pins]
    words = ["release", "start", str(run["steps"]["build"]["tag"]), "--hypothesis", f"retrained: {ruling.why}"[:400]]
    yield "release", words + (["--policy", policy.release_policy] if policy.release_policy else [])


def _children_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
