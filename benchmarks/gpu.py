"""Batched ranking of the distributed topology: `make gpu-bench`, or `python -m benchmarks.gpu --device cpu` for a try.

in_process   one batch of 32 requests after another: the ranker as the service loads it (ONNX Runtime, on CUDA where
             there is one) and the same weights in plain PyTorch on the same device, in turn; copies included
service      the real `Ranking` process on its Unix socket, asked by several processes in an open loop at a fixed rate
             of requests of 500 rows each: what it answers a second, latency from the planned moment

Exits with code 5 where CUDA was asked for and is not there.
"""

import argparse
import asyncio
import json
import math
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from benchmarks.load.open_loop import moments, percentiles
from benchmarks.paired import in_turn, median, ratio
from benchmarks.processes import wait_until
from benchmarks.reference_home import Reference, Size, reference
from benchmarks.reference_ranker import reference_dcn, sample_rows
from bentos.recommender import device as devices
from bentos.recommender.assemble import load_models
from bentos.recommender.wire import pack_rows
from contracts import tracking
from contracts.errors import StreamRecError, Unreachable
from features.ranking import row_schema
from registry.artifacts import KINDS
from training.models.dcn_weights import DcnWeights

ROOT = Path(__file__).resolve().parents[1]
ROWS = 500
BATCH = 32  # requests


class PlainDcn(nn.Module):
    """The reference's weights as a team would write the model: float32 rows [R, F] → [R]."""

    def __init__(self, weights: DcnWeights) -> None:
        super().__init__()
        self.mean = nn.Parameter(torch.from_numpy(weights.mean))
        self.scale = nn.Parameter(torch.from_numpy(weights.scale))
        self.clip, self.slope, self.offset = weights.clip, weights.slope, weights.offset
        self.tables = nn.ModuleList(nn.Embedding.from_pretrained(torch.from_numpy(t)) for t in weights.tables)
        self.cross = nn.ModuleList(_linear(*layer) for layer in weights.cross)
        self.deep = nn.Sequential(*(part for layer in weights.deep for part in (_linear(*layer), nn.ReLU())))
        self.out = _linear(weights.out[:, None], np.float32([weights.out_bias]))

    def forward(self, rows: Tensor) -> Tensor:
        dense = len(self.mean)
        parts = [((rows[:, :dense] - self.mean) * self.scale).clamp(-self.clip, self.clip)]
        for at, table in enumerate(self.tables):
            parts.append(table(rows[:, dense + at].long().clamp(0, table.num_embeddings - 1)))
        first = x = torch.cat(parts, dim=1)
        for layer in self.cross:
            x = first * layer(x) + x
        logits = self.out(torch.cat([x, self.deep(first)], dim=1))[:, 0]
        return torch.sigmoid(self.slope * logits + self.offset)


def run(
    size: Size, cache: Path, *, device: str, rate: float, seconds: float, rounds: int, clients: int
) -> dict[str, Any]:
    """The document.

    Raises:
        Unreachable: no CUDA device, or an ONNX Runtime without it.
    """
    if device == "cuda":
        if not torch.cuda.is_available():
            raise Unreachable("there is no CUDA device here", next_command="python -m benchmarks.gpu --device cpu")
        if devices.providers("gpu") == (devices.CPU,):
            raise Unreachable(
                "this ONNX Runtime has no CUDA", next_command="pip install -r deploy/requirements-serve-gpu.txt"
            )
    made = reference(size, cache)
    rows = sample_rows(made.world / "retrieval", size.ranker.users, size.seed)
    rows = np.ascontiguousarray(np.resize(rows, (BATCH * ROWS, rows.shape[1])))
    return {
        "device": torch.cuda.get_device_name(0) if device == "cuda" else "CPU",
        "rows_per_request": ROWS,
        **_in_process(made, size, rows, device, rounds),
        "service": [_service(made, rows[:ROWS], device, rate, seconds, clients)],
    }


def _in_process(made: Reference, size: Size, rows: NDArray[np.float32], device: str, rounds: int) -> dict[str, Any]:
    providers = devices.providers("gpu" if device == "cuda" else "cpu")
    models = load_models({kind: made.world / kind for kind in KINDS}, providers=providers, parts=("ranker",))
    assert models.ranker is not None, models.problems
    samples = sample_rows(made.world / "retrieval", size.ranker.users, size.seed)
    plain = PlainDcn(reference_dcn(size.ranker, row_schema(models.catalogue), samples, size.seed)).to(device).eval()

    @torch.inference_mode()
    def by_torch(batch: NDArray[np.float32]) -> NDArray[np.float32]:
        return plain(torch.from_numpy(batch).to(device)).cpu().numpy()

    ways: dict[str, Callable[[NDArray[np.float32]], NDArray[np.float32]]] = {
        "this service": models.ranker.score,
        "plain PyTorch": by_torch,
    }
    torch.set_num_threads(1)
    apart = float(np.abs(models.ranker.score(rows) - by_torch(rows)).max())
    took: dict[str, list[float]] = {name: [] for name in ways}
    for n in range(rounds):
        for name in in_turn(list(ways), n):
            began = time.perf_counter()
            ways[name](rows)
            took[name].append(time.perf_counter() - began)
    found = {
        name: {
            "requests_per_s": round(BATCH / median(seconds), 1),
            "p50_ms": round(float(np.percentile(seconds, 50)) * 1e3, 3),
            "p99_ms": round(float(np.percentile(seconds, 99)) * 1e3, 3),
        }
        for name, seconds in took.items()
    }
    times = ratio(took["plain PyTorch"], took["this service"])
    return {"in_process": found, "ratio": times, "scores_apart": apart, "provider": models.provider}


def _service(
    made: Reference, rows: NDArray[np.float32], device: str, rate: float, seconds: float, clients: int
) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="streamrec-gpu-") as folder:
        path, file = Path(folder) / "ranking.sock", Path(folder) / "rows.npy"
        np.save(file, rows)
        env = {
            **os.environ,
            "STREAMREC_HOME": folder,
            "STREAMREC_DEVICE": "gpu" if device == "cuda" else "cpu",
            "STREAMREC_TOPOLOGY": "distributed",
            "BENTOML_HOME": f"{folder}/bentoml",
            **tracking.OFF,
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": str(ROOT),
        }
        worker = ["-m", "bentos.recommender.worker", "--bundles", str(made.world), "--service", "Ranking"]
        with (Path(folder) / "ranking.log").open("wb") as log:
            ranking = subprocess.Popen([sys.executable, *worker, "--uds", str(path)], env=env, stderr=log, cwd=ROOT)
            try:
                wait_until(lambda: _listens(path), f"Ranking does not listen: {folder}", 120)
                asked = [sys.executable, "-m", "benchmarks.gpu", "--ask", str(path), "--rows", str(file)]
                asked += ["--rate", str(rate / clients), "--seconds", str(seconds)]
                askers = [
                    subprocess.Popen([*asked, "--seed", str(n)], env=env, stdout=subprocess.PIPE, text=True, cwd=ROOT)
                    for n in range(clients)
                ]
                said = [asker.communicate(timeout=seconds + 120)[0] for asker in askers]
            finally:
                ranking.terminate()
                ranking.wait(30)
    parts = [json.loads(text) for text in said if text.strip()]
    if len(parts) < clients:
        raise StreamRecError(f"{clients - len(parts)} of {clients} askers failed")
    latencies = np.concatenate([np.asarray(part["latencies_ms"]) for part in parts])
    return {
        "rate": rate,
        "answered_per_s": round(sum(part["answered"] / part["seconds"] for part in parts), 1),
        "failed": sum(part["failed"] for part in parts),
        "latency_ms": percentiles(latencies),
        "batches": max((part["status"] for part in parts), key=lambda status: status.get("rows", 0)),
        "clients": clients,
    }


async def _ask(path: Path, rows: NDArray[np.float32], rate: float, seconds: float, seed: int) -> dict[str, Any]:
    """One asker: a task a request, at its planned moment."""
    from _bentoml_impl.client.proxy import RemoteProxy
    from _bentoml_impl.loader import load

    entry = load("bentos.recommender.service:Recommender", standalone_load=True)
    entry.inject_config()
    ranking = entry.find_dependent_by_name("Ranking")
    client: Any = RemoteProxy(path.as_uri(), service=ranking).to_async
    asked = pack_rows(rows, math.inf)
    await client.call("score", asked)
    planned = moments(rate, seconds, "poisson", seed)
    latencies: list[float] = []
    failed = 0

    async def one(due: float) -> None:
        nonlocal failed
        try:
            (scores,) = await client.call("score", asked)
            if scores.shape != (len(rows),) or not np.isfinite(scores).all():
                raise ValueError("not scores")
        except Exception:  # whatever the client raises, it is no answer
            failed += 1
        else:
            latencies.append((time.perf_counter() - due) * 1e3)

    begin = time.perf_counter()
    tasks = []
    for at in planned.tolist():
        if (wait := begin + at - time.perf_counter()) > 0:
            await asyncio.sleep(wait)
        tasks.append(asyncio.create_task(one(begin + at)))
    await asyncio.gather(*tasks)
    took = time.perf_counter() - begin
    status = await client.call("status")
    return {
        "answered": len(latencies),
        "failed": failed,
        "seconds": took,
        "latencies_ms": latencies,
        "status": {name: status.get(name, 0) for name in ("batches", "rows", "largest")},
    }


def _linear(weight: NDArray[np.float32], bias: NDArray[np.float32]) -> nn.Linear:
    layer = nn.Linear(*weight.shape)
    layer.weight.data = torch.from_numpy(np.ascontiguousarray(weight.T))
    layer.bias.data = torch.from_numpy(np.asarray(bias, np.float32))
    return layer


def _listens(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            return False
        return True


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--rate", type=float, default=10_000, help="requests a second of the service")
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--rounds", type=int, default=50, help="batches in process")
    parser.add_argument("--clients", type=int, default=max(1, (os.cpu_count() or 2) - 2), help="processes that ask")
    parser.add_argument("--users", type=int, default=5_000)
    parser.add_argument("--items", type=int, default=200_000)
    parser.add_argument("--cache", type=Path, default=Path(".streamrec") / "bench")
    parser.add_argument("--save", type=Path)
    parser.add_argument("--ask", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--rows", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--seed", type=int, default=1, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.ask:
        rows = np.load(arguments.rows)
        json.dump(asyncio.run(_ask(arguments.ask, rows, arguments.rate, arguments.seconds, arguments.seed)), sys.stdout)
        return
    try:
        document = run(
            Size(users=arguments.users, items=arguments.items),
            arguments.cache,
            device=arguments.device,
            rate=arguments.rate,
            seconds=arguments.seconds,
            rounds=arguments.rounds,
            clients=arguments.clients,
        )
    except StreamRecError as error:
        print(f"{error.message}\n  next: {error.next_command}", file=sys.stderr)
        raise SystemExit(error.exit_code) from error
    text = json.dumps(document, indent=1)
    if arguments.save:
        arguments.save.parent.mkdir(parents=True, exist_ok=True)
        arguments.save.write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
