from pathlib import Path

import pytest

from contracts.errors import UsageError
from contracts.settings import load_settings


def test_a_config_that_is_a_folder_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is a folder"):
        load_settings(environ={"STREAMREC_CONFIG": str(tmp_path)})


def test_a_home_that_is_a_file_is_a_usage_error(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.write_text("")
    with pytest.raises(UsageError, match="not a folder"):
        load_settings(environ={"STREAMREC_HOME": str(home), "STREAMREC_CONFIG": str(tmp_path / "none.toml")})


def test_a_home_that_is_not_there_yet_is_fine(tmp_path: Path) -> None:
    environ = {"STREAMREC_HOME": str(tmp_path / "new"), "STREAMREC_CONFIG": str(tmp_path / "none.toml")}
    assert load_settings(environ=environ).home == tmp_path / "new"
