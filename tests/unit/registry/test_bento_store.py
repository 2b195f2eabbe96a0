"""What is said of a Bento that is not there."""

import shlex
from pathlib import Path

import pytest

from contracts.errors import NotFound
from registry.bento_store import stored_bento


def test_where_nothing_has_been_built_the_next_command_builds(tmp_path: Path) -> None:
    for tag in (None, "streamrec:nope"):
        with pytest.raises(NotFound) as missing:
            stored_bento(tag, tmp_path)
        assert missing.value.next_command == "streamrec build"


def test_a_tag_that_is_not_there_is_answered_with_a_list_of_this_store(tmp_path: Path) -> None:
    home = tmp_path / "a home"
    bento = home / "bentoml/bentos/streamrec/abc"
    bento.mkdir(parents=True)
    (bento / "bento.yaml").write_text("name: streamrec\nversion: abc\n")
    with pytest.raises(NotFound) as missing:
        stored_bento("streamrec:nope", home)
    setting, *command = shlex.split(missing.value.next_command or "")
    assert setting == f"BENTOML_HOME={home.resolve() / 'bentoml'}"
    assert command == ["bentoml", "list"]
