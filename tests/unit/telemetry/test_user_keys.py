"""Hidden ids: the same user the same id under one key, nothing of the name in it, and no key lost."""

import os

import pytest

from bentos.telemetry.contexts import ContextLog, find_context
from bentos.telemetry.roll import roll
from contracts.errors import NotFound, UsageError
from contracts.user_keys import UserKeys, rotate


def test_an_id_is_hidden_the_same_way_as_long_as_the_key_is_used(tmp_path):
    path = tmp_path / "keys" / "users.json"
    rotate(path, 0)
    keys = UserKeys(path)
    hidden = keys.hide("u1")
    assert hidden == keys.hide("u1") == UserKeys(path).hide("u1")
    assert hidden.startswith("k1.")
    assert "u1" not in hidden
    assert hidden != keys.hide("u2")


def test_a_rotated_key_hides_from_then_on_and_the_old_one_is_kept(tmp_path, monkeypatch):
    path = tmp_path / "users.json"
    rotate(path, 0)
    keys = UserKeys(path)
    before = keys.hide("u1")
    rotate(path, 1_000)
    monkeypatch.setattr("contracts.user_keys.LOOK_S", 0.0)
    after = keys.hide("u1")
    assert after.startswith("k2.")
    assert after != before
    assert keys.every("u1") == ["u1", before, after]
    assert keys.known(["u1"]) == {before: "u1", after: "u1"}
    assert (keys.at(999).id, keys.at(1_000).id) == ("k1", "k2")


def test_a_request_is_found_in_memory_and_on_disk_with_its_user_hidden(tmp_path, context_record):
    rotate(tmp_path / "users.json", 0)
    keys = UserKeys(tmp_path / "users.json")
    log = ContextLog(tmp_path, hide=keys.hide)
    log.append(context_record("r1"))
    assert log.find("r1").user_id == keys.hide("u1")
    log.close()
    roll(tmp_path)
    assert find_context(tmp_path, "r1").user_id == keys.hide("u1")
    assert not [p for p in (tmp_path / "log").rglob("*") if p.is_file() and b"u1" in p.read_bytes()]


def test_a_file_that_breaks_while_it_is_used_leaves_the_keys_as_they_were(tmp_path, monkeypatch):
    path = tmp_path / "users.json"
    rotate(path, 0)
    keys = UserKeys(path)
    before = keys.hide("u1")
    monkeypatch.setattr("contracts.user_keys.LOOK_S", 0.0)
    path.write_text("{")
    assert keys.hide("u1") == before


@pytest.mark.parametrize("text", ["", "{}", '{"keys": []}', '{"keys": [{"id": "k1", "secret": "00", "since_us": 0}]}'])
def test_a_file_without_keys_is_refused_and_never_quoted(tmp_path, text):
    path = tmp_path / "users.json"
    path.write_text(text)
    path.chmod(0o600)
    with pytest.raises(UsageError, match="is no file of user keys"):
        UserKeys(path)


def test_a_file_that_others_may_read_is_refused_and_a_missing_one_says_how_to_make_it(tmp_path):
    path = tmp_path / "users.json"
    with pytest.raises(NotFound) as missing:
        UserKeys(path)
    assert missing.value.next_command == "streamrec monitor keys rotate"
    rotate(path, 0)
    assert os.stat(path).st_mode & 0o777 == 0o600
    path.chmod(0o640)
    with pytest.raises(UsageError, match="may be read by others"):
        UserKeys(path)


def test_a_key_does_not_show_in_words(tmp_path):
    key = rotate(tmp_path / "users.json", 0)
    assert key.secret not in repr(key)
