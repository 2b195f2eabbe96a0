"""The address of an online store as it may be shown: messages end up in logs and in answers."""


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
