import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.online.url import without_secrets


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://127.0.0.1:6379/0", "redis://127.0.0.1:6379/0"),
        ("redis://:secret@host:1/0", "redis://host:1/0"),
        ("rediss://me:se@cr/et@host:1/0", "rediss://host:1/0"),
        ("redis://host/0?password=secret", "redis://host/0"),
        ("unix://:secret@/run/redis.sock?db=1", "unix:///run/redis.sock"),
        ("cassandra", "cassandra"),
    ],
)
def test_an_address_keeps_its_scheme_and_loses_its_password(url: str, shown: str) -> None:
    assert without_secrets(url) == shown


@given(st.text(alphabet="S?@#:%", min_size=1).filter(lambda password: "S" in password))
def test_no_password_is_ever_shown(password: str) -> None:
    assert "S" not in without_secrets(f"redis://me:{password}@host:6379/0")
    assert "S" not in without_secrets(f"redis://host:6379/0?password={password}")
