"""What is said of a Bento that is not there."""

import shlex
from pathlib import Path

import pytest

from contracts.errors import NotFound, Refused
from contracts.settings import Settings
from registry.bento_store import stored_bento
from registry.releases.candidate import known_tag


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


def old_bento(home: Path) -> Path:
    bento = home / "bentoml/bentos/streamrec/abc"
    (bento / "src" / "contracts").mkdir(parents=True)
    labels = "".join(f"  mlflow.{kind}: models:/streamrec-{kind}/1\n" for kind in ("retrieval", "ranking", "fallback"))
    (bento / "bento.yaml").write_text(f"name: streamrec\nversion: abc\nlabels:\n{labels}")
    return bento


def test_a_bento_from_before_users_could_be_hidden_is_refused_where_they_are_and_says_what_to_build(
    tmp_path: Path,
) -> None:
    bento = old_bento(tmp_path)
    hidden = Settings(home=tmp_path, user_keys=tmp_path / "users.json")
    with pytest.raises(Refused, match="build its models again") as refused:
        known_tag("streamrec:abc", hidden)
    assert refused.value.next_command == (
        "streamrec build --retrieval models:/streamrec-retrieval/1 --ranking models:/streamrec-ranking/1"
        " --fallback models:/streamrec-fallback/1"
    )
    assert known_tag("streamrec:abc", Settings(home=tmp_path)) == "streamrec:abc"
    (bento / "src" / "contracts" / "user_keys.py").touch()
    assert known_tag("streamrec:abc", hidden) == "streamrec:abc"
