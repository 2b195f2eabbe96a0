"""Where the CPU of a running process goes: by library (perf) and by Python stack (py-spy). Empty without the tool."""

import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

HERTZ = 499
# Threads that wait look busy to a sampler that reads Python's frames.
WAITING = ("Condition.wait", "Event.wait", "SegmentWriter._take", "Compute._work", "Runner.run")
LEAST = 0.002  # share of all samples below which a stack is folded into its parent

# What a shared library is part of; the first that fits.
PARTS = (
    ("ranker and two-tower (ONNX Runtime)", re.compile(r"onnxruntime")),
    ("index search (FAISS)", re.compile(r"faiss")),
    ("matrix products (BLAS)", re.compile(r"openblas|libmkl|libblas")),
    ("NumPy", re.compile(r"_multiarray_umath|numpy|_generator|mtrand")),
    ("Python", re.compile(r"^python3?|libpython|\[JIT\]|perf-\d+\.map")),
    ("kernel", re.compile(r"\[kernel|\[vdso\]|\[unknown\]")),
    ("store (SQLite)", re.compile(r"sqlite")),
    ("HTTP and JSON (uvloop, httptools, msgspec)", re.compile(r"uvloop|httptools|msgspec|parser\.cpython")),
    ("C library", re.compile(r"^libc[.-]|libm[.-]|libpthread|ld-linux|libstdc|libgcc|libgomp")),
)
KERNELS = ("ranker and two-tower (ONNX Runtime)", "index search (FAISS)", "matrix products (BLAS)")


def by_library(pid: int, seconds: float) -> dict[str, float]:
    """Part → share of the samples, largest first."""
    perf = shutil.which("perf")
    if perf is None:
        return {}
    with tempfile.TemporaryDirectory(prefix="streamrec-perf-") as folder:
        data = f"{folder}/perf.data"
        record = [perf, "record", "-q", "-e", "cpu-clock", "-F", str(HERTZ), "-p", str(pid), "-o", data]
        done = _run([*record, "--", "sleep", f"{seconds:g}"])
        if done.returncode or not Path(data).exists():
            return {}
        report = _run([perf, "report", "-q", "-i", data, "--sort", "dso", "--stdio", "-F", "overhead,dso"])
    return parts(report.stdout)


def parts(report: str) -> dict[str, float]:
    """From perf's lines `12.34%  libname.so`."""
    shares: Counter[str] = Counter()
    for percent, library in re.findall(r"^\s*([\d.]+)%\s+(\S+)", report, re.MULTILINE):
        shares[next((name for name, pattern in PARTS if pattern.search(library)), "other")] += float(percent) / 100
    return {name: round(share, 4) for name, share in shares.most_common()}


def by_stack(pid: int, seconds: float) -> dict[str, int]:
    """`frame;frame;frame` from the outside in → samples."""
    spy = _py_spy()
    if spy is None:
        return {}
    with tempfile.NamedTemporaryFile(prefix="streamrec-spy-", suffix=".txt") as file:
        command = [spy, "record", "-r", "200", "-d", str(max(1, round(seconds))), "-f", "raw"]
        if _run([*command, "-o", file.name, "--pid", str(pid)]).returncode:
            return {}
        return folded(Path(file.name).read_text())


def folded(raw: str) -> dict[str, int]:
    """Samples by stack, rare stacks counted for the longest part of them that is not rare."""
    samples: list[tuple[tuple[str, ...], int]] = []
    for line in raw.splitlines():
        stack, _, count = line.rpartition(" ")
        waits = stack.rpartition(";")[2].startswith(WAITING)
        if stack and count.isdigit() and not waits:
            samples.append((tuple(_frame(frame) for frame in stack.split(";")), int(count)))
    weight: Counter[tuple[str, ...]] = Counter()
    for stack_, n in samples:
        for depth in range(1, len(stack_) + 1):
            weight[stack_[:depth]] += n
    total = sum(n for _, n in samples)
    kept: Counter[str] = Counter()
    for stack_, n in samples:
        depth = len(stack_)
        while depth > 1 and weight[stack_[:depth]] < LEAST * total:
            depth -= 1
        kept[";".join(stack_[:depth])] += n
    return dict(kept)


def _frame(text: str) -> str:
    """`function (file.py)` without line and folders."""
    found = re.match(r"(.*?) \((?:.*/)?([^/]+?)(?::\d+)?\)$", text)
    return f"{found[1]} ({found[2]})" if found else text


def _py_spy() -> str | None:
    """Of the PATH, or the one that Ray brings into its peer's environment."""
    beside = Path(sys.prefix) / "peers" / "ray_serve" / "bin" / "py-spy"
    return shutil.which("py-spy") or (str(beside) if beside.exists() else None)


def _run(command: list[str]) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(command, capture_output=True, text=True, check=False)
