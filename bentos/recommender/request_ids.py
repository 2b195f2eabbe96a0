"""Ids of requests."""

from uuid6 import uuid7


def new_request_id() -> str:
    """UUIDv7 (RFC 9562): sorts by time."""
    return str(uuid7())
