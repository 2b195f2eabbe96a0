"""Moments on the command line."""

from datetime import UTC, datetime
from typing import overload

from contracts.errors import UsageError


@overload
def moment_us(text: str, option: str) -> int: ...
@overload
def moment_us(text: None, option: str) -> None: ...
@overload
def moment_us(text: str | None, option: str) -> int | None: ...
def moment_us(text: str | None, option: str) -> int | None:
    """Microseconds since 1970 UTC of an ISO 8601 date or time; without a zone it is UTC, as all data is. None: None.

    Raises:
        UsageError: it is none.
    """
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text.strip().removesuffix("UTC").strip())
    except ValueError as error:
        raise UsageError(
            f"{option}: {text!r} is not an ISO 8601 time",
            next_command=f"{option} 2011-07-06, or {option} 2011-07-06T11:22:00Z",
        ) from error
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    since = moment - datetime(1970, 1, 1, tzinfo=UTC)
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds
