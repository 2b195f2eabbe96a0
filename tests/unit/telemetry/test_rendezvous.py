import os
from pathlib import Path

import pytest

from bentos.telemetry.rendezvous import run_folder, socket_to_bind, socket_to_connect
from contracts.errors import Unreachable


def test_a_short_home_has_its_socket_inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run_folder(Path("h"))
    if len(os.fsencode(tmp_path)) > 80:
        pytest.skip("the temporary folder itself is deep")
    assert socket_to_bind(Path("h")) == socket_to_connect(Path("h")) == tmp_path / "h/run/events.sock"


def test_a_deep_home_has_a_short_socket_that_its_clients_find(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / ("d" * 120)
    run_folder(home)
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path))
    assert socket_to_connect(home) is None
    bound = socket_to_bind(home)
    assert len(os.fsencode(bound.name)) < 40
    assert socket_to_connect(home) == bound
    assert bound.parent.stat().st_mode & 0o777 == 0o700


def test_a_folder_that_others_can_enter_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / ("d" * 120)
    run_folder(home)
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path))
    folder = tmp_path / f"streamrec-{os.getuid()}"
    folder.mkdir()
    folder.chmod(0o755)
    with pytest.raises(Unreachable, match="private"):
        socket_to_bind(home)
