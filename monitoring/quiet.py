"""A process that watches must not be felt by those that answer: last in the queue, and never on all cores."""

import os

NICE = 15
THREADS = 2


def be_quiet(threads: int = THREADS) -> None:
    """Lower this process's priority for good, and cap the threads of Arrow, BLAS and torch; once, at its start."""
    os.nice(max(NICE - os.nice(0), 0))
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
        os.environ.setdefault(name, str(threads))  # libraries that are loaded later
    import pyarrow as pa
    from threadpoolctl import threadpool_limits

    pa.set_cpu_count(threads)
    pa.set_io_thread_count(threads)
    threadpool_limits(threads)
