import json
import os
from pathlib import Path

import pytest

from contracts.errors import DataError, UsageError
from training.data.folder import ORIGIN, publish


def test_a_folder_appears_whole_with_its_origin(tmp_path):
    with publish(tmp_path / "deep" / "out", {"made_by": "test"}) as folder:
        (folder / "a").write_text("1")
        assert not (tmp_path / "deep" / "out").exists()
    assert (tmp_path / "deep" / "out" / "a").read_text() == "1"
    assert json.loads((tmp_path / "deep" / "out" / ORIGIN).read_text()) == {"made_by": "test"}
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["out"]


def test_a_failure_leaves_nothing_and_an_older_result_as_it_was(tmp_path):
    out = tmp_path / "out"
    with publish(out, {}) as folder:
        (folder / "a").write_text("old")
    with pytest.raises(FileNotFoundError), publish(out, {}) as folder:
        (folder / "missing" / "a").write_text("new")
    assert (out / "a").read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_a_result_of_ours_is_replaced_and_an_empty_folder_is_filled(tmp_path):
    (tmp_path / "out").mkdir()
    for text in ("one", "two"):
        with publish(tmp_path / "out", {}) as folder:
            (folder / text).write_text(text)
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [ORIGIN, "two"]


@pytest.mark.parametrize("kind", ["folder", "file", "link"])
def test_what_somebody_else_made_is_never_replaced(tmp_path, kind):
    out = tmp_path / "out"
    if kind == "folder":
        out.mkdir()
        (out / "thesis.txt").write_text("mine")
    elif kind == "file":
        out.write_text("mine")
    else:
        out.symlink_to(tmp_path / "nowhere")
    with pytest.raises(UsageError, match="not a data set that this command made"), publish(out, {}):
        pytest.fail("must not get here")
    assert os.path.lexists(out)


def test_left_overs_of_a_dead_run_go_and_those_of_a_live_one_stay(tmp_path):
    dead, live = tmp_path / f".out.partial-{2**22 + 1}", tmp_path / ".out.partial-1"
    other = tmp_path / f".output.partial-{2**22 + 1}"
    for path in (dead, live, other):
        path.mkdir()
    with publish(tmp_path / "out", {}):
        pass
    assert (dead.exists(), live.exists(), other.exists()) == (False, True, True)


def test_a_parent_that_is_a_file_is_a_usage_error(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(UsageError, match="cannot write beside"), publish(tmp_path / "file" / "out", {}):
        pytest.fail("must not get here")


def test_a_full_disk_is_a_data_error_that_says_so(tmp_path):
    with pytest.raises(DataError, match="No space left"), publish(tmp_path / "out", {}):
        raise OSError(28, os.strerror(28))
    assert not list(tmp_path.iterdir())


def test_a_link_to_a_result_of_ours_stays_a_link(tmp_path):
    with publish(tmp_path / "real", {}) as folder:
        (folder / "one").touch()
    (tmp_path / "out").symlink_to(tmp_path / "real")
    with publish(tmp_path / "out", {}) as folder:
        (folder / "two").touch()
    assert (tmp_path / "out").is_symlink()
    assert sorted(p.name for p in (tmp_path / "real").iterdir()) == [ORIGIN, "two"]


def test_a_place_that_another_run_took_meanwhile_is_a_usage_error(tmp_path, monkeypatch):
    real = Path.rename

    def late(self: Path, target: Path) -> Path:
        if ".partial-" in self.name:
            target.mkdir()
            (target / "theirs").touch()
        return real(self, target)

    monkeypatch.setattr(Path, "rename", late)
    with pytest.raises(UsageError, match="another run"), publish(tmp_path / "out", {}):
        pass
    assert (tmp_path / "out" / "theirs").exists()
