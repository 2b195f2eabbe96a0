"""The import table of the architecture, held by walking the imports with `ast`."""

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from contracts import tracking

ROOT = Path(__file__).resolve().parents[2]
FIRST_PARTY = ("contracts", "features", "registry", "bentos", "training", "monitoring", "cli")

# What each package may import of the others. A prefix allows everything below it.
ALLOWED: dict[str, tuple[str, ...]] = {
    "contracts": (),
    "features": ("contracts",),
    "registry": ("contracts", "features"),
    "bentos": ("contracts", "features", "registry.artifacts"),
    "training": ("contracts", "features", "registry", "bentos.recommender", "bentos.telemetry", "bentos.catalogue"),
    "monitoring": ("contracts", "features", "registry", "bentos", "training.evaluation"),
    "cli": FIRST_PARTY,
}
FORBIDDEN: dict[str, tuple[str, ...]] = {
    "training": ("bentos.recommender.service", "bentos.recommender.entry", "bentos.recommender.worker"),
}
# Heavy libraries that must not reach a serving process.
NOT_IN_SERVING = {
    "torch",
    "lightgbm",
    "mlflow",
    "pandas",
    "sklearn",
    "duckdb",
    "matplotlib",
    "alibi_detect",
    "evidently",
}
# Adapters of a ranker's file for where its library is installed: imported inside functions, and nowhere else.
ASKED_FOR = {
    "bentos/recommender/rankers/exported.py": "torch",
    "bentos/recommender/rankers/lightgbm_text.py": "lightgbm",
}


def imports_of(path: Path) -> Iterator[str]:
    """Dotted names a file imports, at any depth of the file."""
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            assert node.module
            # `from a import b` may name a module: both are arrows.
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def within(name: str, prefixes: tuple[str, ...]) -> bool:
    return any(name == p or name.startswith(p + ".") for p in prefixes)


@pytest.mark.parametrize("package", FIRST_PARTY)
def test_imports_follow_the_architecture_table(package: str) -> None:
    wrong = []
    for path in sorted((ROOT / package).rglob("*.py")):
        for name in imports_of(path):
            top = name.split(".")[0]
            if top not in FIRST_PARTY or top == package:
                continue
            allowed = ALLOWED[package]
            # `from registry import artifacts` names the package on its way to the module.
            on_the_way = any(a.startswith(name + ".") for a in allowed)
            if (not within(name, allowed) and not on_the_way) or within(name, FORBIDDEN.get(package, ())):
                wrong.append(f"{path.relative_to(ROOT)} imports {name}")
    assert not wrong, "\n".join(wrong)


def serving_files() -> set[Path]:
    """Every first-party file that importing the service may reach."""
    found: set[Path] = set()
    todo = sorted((ROOT / "bentos").rglob("*.py"))
    while todo:
        path = todo.pop()
        if path in found:
            continue
        found.add(path)
        for name in imports_of(path):
            if name.split(".")[0] not in FIRST_PARTY:
                continue
            base = ROOT.joinpath(*name.split("."))
            todo += [p for p in (base.with_suffix(".py"), base / "__init__.py") if p.exists()]
    return found


def test_serving_reaches_no_training_library() -> None:
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in sorted(serving_files())
        for name in imports_of(path)
        if name.split(".")[0] in NOT_IN_SERVING
        and path.name != "gpu.py"
        and ASKED_FOR.get(str(path.relative_to(ROOT))) != name.split(".")[0]
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(("file", "library"), ASKED_FOR.items())
def test_a_library_that_a_file_asks_for_is_imported_when_it_is_asked_for(file: str, library: str) -> None:
    tree = ast.parse((ROOT / file).read_text())
    early = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    names = [name.name for node in early if isinstance(node, ast.Import) for name in node.names]
    names += [node.module or "" for node in early if isinstance(node, ast.ImportFrom)]
    assert library not in {name.split(".")[0] for name in names}


def test_onnx_runtime_is_imported_where_it_is_told_not_to_report_home() -> None:
    files = {path for package in FIRST_PARTY for path in (ROOT / package).rglob("*.py")}
    importing = {str(path.relative_to(ROOT)) for path in files if "onnxruntime" in imports_of(path)}
    assert importing == {"bentos/recommender/onnx_session.py"}


def test_a_serving_process_leaves_nothing_in_the_home_of_its_user(tmp_path: Path) -> None:
    """ONNX Runtime would: an id of the machine, and a database of what it is going to report."""
    env = {k: v for k, v in os.environ.items() if k not in tracking.OFF and not k.startswith("XDG_")}
    env |= {"HOME": str(tmp_path), "BENTOML_HOME": str(tmp_path / "bentoml"), "STREAMREC_HOME": str(tmp_path / "home")}
    code = "import bentos.recommender.service"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, env=env)
    left = [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()]
    assert not [path for path in left if not path.startswith(("bentoml/", "home/"))]


def test_package_inits_are_empty() -> None:
    for package in FIRST_PARTY:
        for path in (ROOT / package).rglob("__init__.py"):
            assert not path.read_text().strip(), f"{path.relative_to(ROOT)} is not empty"


def test_a_serving_process_starts_without_them() -> None:
    """The libraries may also come through others (`pyarrow.dataset` brings pandas): ask a process."""
    code = (
        "import sys, bentos.recommender.service\n"
        f"print(sorted({NOT_IN_SERVING!r} & set(sys.modules)))"  # what the entry has loaded before its first request
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.stdout.strip().splitlines()[-1:] == ["[]"], done.stderr[-2000:]
