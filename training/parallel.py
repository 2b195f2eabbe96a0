"""Several processes that fit one model: `torchrun --nproc-per-node 2 -m cli train --data DIR`.

Rank 0 runs the training as it always runs; it alone reads the data, writes, registers and prints. The others wait until
it calls them to a fit (`together`): then all take the same steps, each on its share of every batch, and gradients are
averaged (DistributedDataParallel). The same seed and number of processes give the same model. A process by itself goes
through the same code: its share is everything.
"""

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from contracts.errors import StreamRecError

# Ranks wait while the first one does what is not shared; one that is gone closes its connection, which ends the wait.
PATIENCE = timedelta(days=7)

R = TypeVar("R")

HERE = torch.device("cpu")  # by gloo, whatever computes

_fitting = False  # inside a fit that all ranks take part in


def started() -> bool:
    """Whether torchrun started this process, with others."""
    return processes() > 1


def processes() -> int:
    """How many torchrun started; 1 without it."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def follows() -> bool:
    return started() and int(os.environ["RANK"]) > 0


def device() -> torch.device:
    """Where this process fits: under torchrun on the GPU of its rank where there is one. A training of one process is
    on the CPU, where its figures are the same on every machine."""
    if started() and torch.cuda.is_available():
        return torch.device("cuda", int(os.environ["LOCAL_RANK"]))
    return torch.device("cpu")


def size() -> int:
    """How many processes share the work here: 1 outside of a fit that all take part in."""
    return dist.get_world_size() if _fitting else 1


# --- the two roles ----------------------------------------------------------------------------------------------------


@contextmanager
def lead() -> Iterator[None]:
    """Around what rank 0 does. Leaving it, by an error too, ends the others with the same exit code."""
    if not started():
        yield
        return
    _open()
    code = 1
    try:
        yield
        code = 0
    except StreamRecError as error:
        code = error.exit_code
        raise
    finally:
        if not _fitting:  # else the others wait for gradients: they end when the connection does
            dist.broadcast_object_list([code], src=0, device=HERE)
        dist.destroy_process_group()


def follow() -> int:
    """What the other ranks do: take part in each fit that rank 0 calls them to. The exit code that it ends with."""
    _open()
    while True:
        received: list[Any] = [None]
        dist.broadcast_object_list(received, src=0, device=HERE)
        if isinstance(received[0], int):
            dist.destroy_process_group()
            return received[0]
        fit, given, options = received[0]
        with _sharing():
            fit(*given, **options)


def together(fit: Callable[..., R], *given: Any, shown: dict[str, Any] | None = None, **options: Any) -> R:
    """`fit(*given, **options)`, by all ranks where there are several; the answer is rank 0's.

    given, options: sent to the others, pickled. shown: options for rank 0 alone (its display of progress).
    """
    if not started():
        return fit(*given, **options, **(shown or {}))
    dist.broadcast_object_list([(fit, given, options)], src=0, device=HERE)
    with _sharing():
        return fit(*given, **options, **(shown or {}))


def _open() -> None:
    # What is called for, and agreed on, travels by gloo; gradients as their device has it.
    dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo", timeout=PATIENCE)


@contextmanager
def _sharing() -> Iterator[None]:
    """Left by an error, the flag stays: nobody waits for a call then."""
    global _fitting
    _fitting = True
    yield
    _fitting = False


# --- inside a fit -----------------------------------------------------------------------------------------------------


class _Whole(nn.Module):
    """A loss and the parameters that it reads, wherever they are kept."""

    def __init__(self, loss: Callable[..., Tensor], parameters: Iterable[nn.Parameter]) -> None:
        super().__init__()
        self.loss, self.read = loss, nn.ParameterList(parameters)

    def forward(self, *given: Any) -> Tensor:
        return self.loss(*given)


def averaged(loss: Callable[..., Tensor], parameters: Iterable[nn.Parameter], seed: int) -> Callable[..., Tensor]:
    """`loss` so that `backward` averages gradients over the ranks; from here on they drop out different units."""
    if size() == 1:
        return loss
    torch.manual_seed(seed + dist.get_rank())
    return DistributedDataParallel(_Whole(loss, parameters), gradient_as_bucket_view=True)


def generator(seed: int) -> np.random.Generator:
    """Ranks draw batches of their own."""
    return np.random.default_rng(seed if size() == 1 else [seed, dist.get_rank()])


def own(draws: torch.Generator) -> torch.Generator:
    """The same for PyTorch."""
    return (
        draws if size() == 1 else torch.Generator(draws.device).manual_seed(draws.initial_seed() + 1 + dist.get_rank())
    )


def part(batch: int) -> int:
    """Of a batch, how many this rank draws."""
    return max(1, batch // size())


def share(rows: Tensor) -> Tensor:
    """This rank's rows of a batch that all drew alike; the whole where it is too small to be shared out."""
    return rows[dist.get_rank() :: size()] if 1 < size() <= len(rows) else rows


def agreed(answer: Callable[[], float]) -> float:
    """A number that rank 0 finds out and all go by."""
    if size() == 1:
        return answer()
    found = [answer() if dist.get_rank() == 0 else 0.0]
    dist.broadcast_object_list(found, src=0, device=HERE)
    return found[0]
