"""The address of a Redis as it may be shown: messages end up in logs and in answers."""

from urllib.parse import unquote, urlsplit


def without_secrets(url: str) -> str:
    """`redis://user:secret@host/0?password=secret` as `redis://host/0`; a word that is no URL as it is.

    By its characters and not by a parser: what no parser takes must not be shown with its password either.
    """
    scheme, separator, rest = url.partition("://")
    if not separator:
        return url.rpartition("@")[2]
    address, _, query = rest.partition("?")
    # An `@` after a `?`: one of them is part of a password, and nothing says where it ends.
    return f"{scheme}://…" if "@" in query else f"{scheme}://{address.rpartition('@')[2]}"


def ask_by_hand(url: str, words: str = "ping") -> str:
    """A command that asks the same Redis; a password is left to whoever types it."""
    parts = urlsplit(url)
    password = "REDISCLI_AUTH=… " if parts.password or "password=" in parts.query else ""
    user = f" --user {parts.username}" if password and parts.username else ""
    where = f"-s {unquote(parts.path)}" if parts.scheme == "unix" else f"-u {without_secrets(url)}"
    return f"{password}redis-cli{user} {where} {words}"
