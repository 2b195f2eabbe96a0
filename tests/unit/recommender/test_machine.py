"""What computes is named by what changes its bits."""

import platform
from pathlib import Path

import pytest

from bentos.recommender.machine import blas_threads, instruction_set, machine


def test_the_instruction_set_has_the_extensions_that_libraries_choose_code_by(tmp_path: Path) -> None:
    told = tmp_path / "cpuinfo"
    told.write_text("processor\t: 0\nflags\t\t: fpu sse avx2 fma avx512f hypervisor\n")
    assert instruction_set(told) == f"{platform.machine()} avx2 fma avx512f"
    told.write_text("processor : 0\nFeatures : fp asimd sve\n")
    assert instruction_set(told) == f"{platform.machine()} asimd sve"
    assert instruction_set(tmp_path / "none") == platform.machine()
    assert "numpy 1." in machine()


def test_threads_of_matrix_products_are_those_that_the_process_was_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert blas_threads() == 3
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "1")
    assert blas_threads() == 1
    monkeypatch.delenv("OMP_NUM_THREADS")
    monkeypatch.delenv("OPENBLAS_NUM_THREADS")
    assert blas_threads() >= 1
