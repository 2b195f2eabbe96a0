"""Who is heard as a gateway, without a process."""

import pytest

from bentos.recommender.front import read_front
from contracts import front


@pytest.mark.parametrize(
    ("ours", "shown", "heard"),
    [
        ("k", b"k", True),
        ("k", b"K", False),
        ("k", b"", False),
        ("k", None, False),
        (None, b"", False),
        ("", b"", False),
    ],
)
def test_only_who_shows_the_key_is_heard_and_an_empty_key_is_none(
    ours: str | None, shown: bytes | None, heard: bool
) -> None:
    headers = [] if shown is None else [(front.KEY, shown)]
    assert (read_front({"headers": headers}, ours, "id") is not None) is heard
