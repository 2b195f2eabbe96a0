"""The same seed and data give the same model: seeds, thread count and deterministic kernels for a block of code."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch

from training import parallel

# Float sums depend on how they are split over threads, so the count is fixed, whatever the machine has. One: these
# models are made of small operations, and two threads that wait for each other on a busy machine are slower than one.
THREADS = 1


@contextmanager
def deterministic(seed: int, threads: int = THREADS) -> Iterator[torch.Generator]:
    """Inside: PyTorch seeded, on `threads` threads, deterministic. Yields a generator for explicit draws.

    The global settings are put back, so that training does not change what runs beside it.
    """
    threads_before = torch.get_num_threads()
    strict_before = torch.are_deterministic_algorithms_enabled()
    place = parallel.device()
    # Tensors are made there; as a mode of its own that costs time at each operation, so not where it changes nothing.
    with torch.random.fork_rng(devices=[]), place if place.type != "cpu" else nullcontext():
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.manual_seed(seed)
        try:
            yield torch.Generator(place).manual_seed(seed)
        finally:
            torch.set_num_threads(threads_before)
            torch.use_deterministic_algorithms(strict_before, warn_only=strict_before)
