from pathlib import Path

import pytest

from contracts.errors import UsageError
from contracts.settings import Settings
from features.online.memory import MemoryStore
from features.online.open import open_store
from features.online.redis import RedisStore
from features.online.sqlite import SqliteStore


@pytest.mark.parametrize(
    ("word", "adapter"),
    [("sqlite", SqliteStore), ("memory", MemoryStore), ("redis://127.0.0.1:1/0", RedisStore)],
)
def test_the_setting_chooses_the_adapter_and_opening_reaches_for_nothing(
    tmp_path: Path, word: str, adapter: type
) -> None:
    store = open_store(Settings(home=tmp_path / "home", online_store=word))
    assert isinstance(store, adapter)
    assert not (tmp_path / "home").exists()
    store.close()


def test_another_word_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cassandra"):
        open_store(Settings(home=tmp_path, online_store="cassandra"))


def test_a_mistyped_scheme_is_refused_without_its_password(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as refused:
        open_store(Settings(home=tmp_path, online_store="reddis://:secret@host/0"))
    assert "secret" not in refused.value.message
