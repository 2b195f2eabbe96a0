import re
import subprocess
import tarfile
from pathlib import Path

import pytest

from registry.environment import archive_sources, code_state, environment_lock


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    (tmp_path / "registry").mkdir()
    (tmp_path / "registry" / "a.py").write_text("A = 1\n")
    for words in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "first"]):
        identity = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
        subprocess.run(["git", *identity, *words], cwd=tmp_path, check=True)
    return tmp_path


def test_a_clean_checkout_is_its_commit(checkout: Path) -> None:
    state = code_state(checkout)
    assert re.fullmatch(r"[0-9a-f]{40}", state.commit)
    assert not state.dirty


def test_a_new_file_makes_it_dirty_and_changes_the_digest(checkout: Path) -> None:
    before = code_state(checkout)
    (checkout / "registry" / "b.py").write_text("B = 2\n")
    after = code_state(checkout)
    assert after.dirty
    assert after.commit == before.commit
    assert after.digest != before.digest


def test_without_git_the_commit_is_unknown_and_the_digest_still_names_the_code(tmp_path: Path) -> None:
    (tmp_path / "contracts").mkdir()
    (tmp_path / "contracts" / "a.py").write_text("A = 1\n")
    state = code_state(tmp_path)
    assert (state.commit, state.dirty) == ("unknown", True)
    assert len(state.digest) == 64


def test_packages_inside_somebody_elses_repository_do_not_take_its_commit(checkout: Path) -> None:
    installed = checkout / "site-packages"
    installed.mkdir()
    assert code_state(installed).commit == "unknown"


def test_the_archive_holds_the_sources(checkout: Path) -> None:
    with tarfile.open(archive_sources(checkout / "sources.tar.gz", checkout)) as tar:
        assert tar.getnames() == ["registry/a.py"]


def test_the_environment_names_python_and_each_distribution_once() -> None:
    lines = environment_lock().splitlines()
    names = [line.split("==")[0] for line in lines[1:]]
    assert lines[0].startswith("# Python 3.11")
    assert "numpy" in names
    assert names == sorted(set(names))
