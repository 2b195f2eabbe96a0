from pathlib import Path

import pytest
import yaml

from contracts.errors import NotFound, Unreachable, UsageError
from registry import images
from registry.bento_store import bentos, stored_bento

BENTO = {
    "name": "streamrec",
    "version": "abc",
    "creation_time": "2026-01-02T03:04:05+00:00",
    "labels": {"mlflow.ranking": "models:/streamrec-ranking/3", "readiness": "inconclusive", "git_commit": "c0ffee"},
    "models": [{"tag": "streamrec-ranking:v3-1a2b3c4d"}],
    "services": [{"name": "Recommender"}],
}


@pytest.fixture
def home(tmp_path: Path) -> Path:
    for version, created in (("abc", "2026-01-02T03:04:05+00:00"), ("old", "2025-01-02T03:04:05+00:00")):
        folder = tmp_path / "bentoml" / "bentos" / "streamrec" / version
        folder.mkdir(parents=True)
        (folder / "bento.yaml").write_text(yaml.safe_dump(BENTO | {"version": version, "creation_time": created}))
    (tmp_path / "bentoml" / "bentos" / "streamrec" / "half").mkdir()
    return tmp_path


def test_the_latest_bento_is_the_last_built_and_a_half_built_one_is_none(home: Path) -> None:
    assert [bento.tag for bento in bentos(home)] == ["streamrec:abc", "streamrec:old"]
    for tag in (None, "latest", "streamrec", "streamrec:latest", "abc", "streamrec:abc"):
        assert stored_bento(tag, home).tag == "streamrec:abc"


@pytest.mark.parametrize("tag", ["streamrec:half", "other:abc", "nothing", "", ":", "a:b:c"])
def test_a_tag_that_is_not_there_is_not_found(home: Path, tag: str) -> None:
    if tag:
        with pytest.raises(NotFound):
            stored_bento(tag, home)
    else:
        assert stored_bento(tag, home).tag == "streamrec:abc"


def test_the_image_is_labelled_with_the_mlflow_versions(home: Path) -> None:
    words = images.command("abc", home, backend="docker", image="shop/recommender:1")
    assert "streamrec.mlflow.ranking=models:/streamrec-ranking/3" in words
    assert "streamrec.readiness=inconclusive" in words
    assert words[words.index("--image-tag") + 1] == "shop/recommender:1"
    assert "--opt" not in words


def test_another_base_image_is_for_builders_that_can(home: Path) -> None:
    words = images.command("abc", home, backend="buildah", image="i", base_image="localhost/base", isolated=True)
    assert "from=localhost/base" in words
    assert "network=host" in words
    with pytest.raises(UsageError, match="buildah and podman"):
        images.command("abc", home, backend="docker", image="i", base_image="localhost/base")


def test_without_a_builder_the_error_names_each_and_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images.shutil, "which", lambda name: None)
    with pytest.raises(Unreachable, match="docker is not installed; podman is not installed; buildah") as error:
        images.choose_backend(None)
    assert "apt-get install buildah" in (error.value.next_command or "")


def test_a_builder_that_is_away_is_unreachable_and_another_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "backend_problem", lambda name: None if name == "buildah" else f"{name} is away")
    with pytest.raises(Unreachable, match="docker is away") as error:
        images.choose_backend("docker")
    assert error.value.next_command == "streamrec containerize TAG --backend buildah"
    assert images.choose_backend(None) == "buildah"


def test_an_unknown_builder_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="kaniko"):
        images.choose_backend("kaniko")
