"""The clock of the reference world and what its users and items are called."""

NOW_US = 1_700_000_000_000_000
HOUR_US = 3_600_000_000


def user_id(row: int) -> str:
    return f"u{row}"


def item_id(row: int) -> str:
    return f"i{row}"
