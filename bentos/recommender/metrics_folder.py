"""The folder that the workers of one parent share for their metrics. Apart from metrics.py, so that the parent, which
measures nothing, does not load prometheus_client.
"""

import os
import shutil
from pathlib import Path

PREFIX = "metrics-"


def shared_folder(run: Path) -> Path:
    """A new folder `run/metrics-PID`; those of parents that are gone are removed."""
    run.mkdir(parents=True, exist_ok=True)
    for old in run.glob(f"{PREFIX}*"):
        if not Path(f"/proc/{old.name.removeprefix(PREFIX)}").exists():
            shutil.rmtree(old, ignore_errors=True)
    folder = run / f"{PREFIX}{os.getpid()}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    return folder


def forget_live(folder: Path) -> None:
    """Remove what holds only while its process lives, of all: they have died with the one that forked them. A scrape
    would add it up for ever; prometheus_client's `mark_process_dead` does this for a single pid.
    """
    for file in folder.glob("gauge_live*_*.db"):
        file.unlink(missing_ok=True)
