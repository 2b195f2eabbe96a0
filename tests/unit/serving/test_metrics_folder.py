"""The folder that the workers of one parent share: another parent beside it takes nothing away."""

import os
import subprocess
import sys

from bentos.recommender.metrics_folder import forget_live, shared_folder


def test_the_metrics_of_one_bento_survive_the_start_of_another_and_those_of_one_that_is_gone_do_not(tmp_path):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    others = tmp_path / f"metrics-{os.getppid()}"
    gone = tmp_path / f"metrics-{ended.pid}"
    before = tmp_path / f"metrics-{os.getpid()}"  # of a process that had this one's number
    for folder in (others, gone, before):
        folder.mkdir()
        (folder / "counter_1.db").touch()
    ours = shared_folder(tmp_path)
    assert ours.name == f"metrics-{os.getpid()}"
    assert not list(ours.iterdir())
    assert (others / "counter_1.db").exists()
    assert not gone.exists()


def test_what_holds_only_while_a_process_lives_is_forgotten_and_what_it_counted_is_not(tmp_path):
    for name in ("gauge_livemax_12.db", "gauge_livesum_7.db", "counter_12.db", "histogram_7.db", "gauge_max_7.db"):
        (tmp_path / name).touch()
    forget_live(tmp_path)
    assert {file.name for file in tmp_path.iterdir()} == {"counter_12.db", "histogram_7.db", "gauge_max_7.db"}
