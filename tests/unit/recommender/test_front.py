"""Who is heard as a gateway, without a process."""

import pytest

from bentos.recommender.front import read_deadline, read_front
from contracts import front
from contracts.errors import BadRequest


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


@pytest.mark.parametrize(("said", "heard"), [(None, None), (b"60000", 60_000.0), (b"12.5", 12.5), (b"0.1", 0.1)])
def test_a_consumers_deadline_is_a_number_of_milliseconds(said: bytes | None, heard: float | None) -> None:
    headers = [] if said is None else [(front.DEADLINE_MS, said)]
    assert read_deadline({"headers": headers}) == heard


@pytest.mark.parametrize(
    "said", [b"", b"soon", b"nan", b"inf", b"-5", b"0", b"60001", b"1e3", b"1_0", b" 5", b"9" * 99]
)
def test_nonsense_is_a_400_that_names_the_header(said: bytes) -> None:
    with pytest.raises(BadRequest, match="milliseconds") as raised:
        read_deadline({"headers": [(front.DEADLINE_MS, said)]})
    assert raised.value.field == "x-streamrec-deadline-ms"
