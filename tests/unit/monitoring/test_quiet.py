"""A process that watches is last in the queue."""

import subprocess
import sys


def test_a_quiet_process_has_a_low_priority_and_two_threads():
    code = (
        "import os, pyarrow as pa; from monitoring.quiet import be_quiet; be_quiet(); be_quiet(); "
        "print(os.nice(0), pa.cpu_count(), pa.io_thread_count(), os.environ['OMP_NUM_THREADS'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    nice, *threads = done.stdout.split()
    assert int(nice) >= 15
    assert threads[:2] == ["2", "2"]
