"""What a Bento installs: the two locks beside the images, against the project's constraints."""

import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[3]
CPU = ROOT / "deploy" / "requirements-serve.txt"
GPU = ROOT / "deploy" / "requirements-serve-gpu.txt"


def pins(path: Path) -> dict[str, str]:
    lines = [line for line in path.read_text().splitlines() if line and not line.startswith("#")]
    pairs = [line.split("==") for line in lines]
    assert all(len(pair) == 2 for pair in pairs), "every line is one exact version"
    return {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in pairs}


@pytest.mark.parametrize("lock", [CPU, GPU])
def test_a_lock_agrees_with_the_constraints(lock: Path) -> None:
    constraints = pins(ROOT / "constraints.txt")
    for name, version in pins(lock).items():
        assert constraints.get(name, version) == version, name


@pytest.mark.parametrize("lock", [CPU, GPU])
def test_serving_installs_neither_training_nor_monitoring(lock: Path) -> None:
    assert not {"torch", "mlflow", "pandas", "duckdb", "scikit-learn", "evidently", "alibi-detect"} & set(pins(lock))


def test_every_direct_dependency_of_serving_is_locked() -> None:
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = {
        re.split(r"[^\w.-]", line)[0].lower()
        for line in project["dependencies"] + project["optional-dependencies"]["serve"]
    }
    assert wanted <= set(pins(CPU))


def test_the_gpu_lock_differs_by_its_inference_runtime_alone() -> None:
    cpu, gpu = pins(CPU), pins(GPU)
    assert cpu.keys() - gpu.keys() == {"onnxruntime"}
    assert gpu.keys() - cpu.keys() == {"onnxruntime-gpu"}
    assert cpu["onnxruntime"] == gpu["onnxruntime-gpu"]


def test_the_gpu_image_is_a_cuda_image_with_cudnn() -> None:
    gpu = yaml.safe_load((ROOT / "deploy" / "gpu.yaml").read_text())
    assert re.match(r"nvidia/cuda:13\.[\d.]+-cudnn-runtime-", gpu["docker"]["base_image"])
