"""Log lines of a serving process: text or JSON, with the id of the request they concern, and nothing personal.

What a user sent must not reach a log by accident, as part of an error's message say. So while a request is under way
its body is known here, and a line that holds a value of it is written with `…` in its place; tokens and keys of the
settings are taken out of every line.
"""

import logging
import re
import sys
from collections.abc import Iterable, Iterator
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, Literal

import msgspec

HIDDEN = "…"
SHORT = 8  # what is shorter than this is no secret, and taking it out would garble every line
TEXT = "%(asctime)s %(levelname)s %(name)s %(message)s"
NOISY = ("uvicorn", "faiss.loader", "bentoml.serve")


class About:
    """The request under way."""

    __slots__ = ("body", "request_id")

    def __init__(self, request_id: str) -> None:
        self.request_id = request_id
        self.body = b""

    def personal(self) -> Iterator[str]:
        """Every string that its user sent; looked for only when there is something to log."""
        try:
            yield from _strings(msgspec.json.decode(self.body))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            yield from re.findall(r'"([^"]+)"', self.body.decode(errors="replace"))


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _strings(inner)


about: ContextVar[About | None] = ContextVar("about", default=None)


class _Clean(logging.Formatter):
    def __init__(self, secrets: Iterable[str] = ()) -> None:
        super().__init__(TEXT)
        self._secrets = tuple(secret for secret in secrets if len(secret) >= SHORT)

    def clean(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, HIDDEN)
        request = about.get()
        if request is not None:
            # As whole words: a value of two letters must not eat into the words of a message.
            words = {form for value in request.personal() if value for form in (value, repr(value)[1:-1])}
            if words:
                longest_first = sorted(words, key=len, reverse=True)
                text = re.sub(rf"(?<!\w)(?:{'|'.join(map(re.escape, longest_first))})(?!\w)", HIDDEN, text)
        return text


class TextLines(_Clean):
    def format(self, record: logging.LogRecord) -> str:
        line = super().format(record)
        request = about.get()
        if request is not None and request.request_id not in line:
            head, _, rest = line.partition("\n")
            line = f"{head} [request {request.request_id}]" + (f"\n{rest}" if rest else "")
        return self.clean(line)


class JsonLines(_Clean):
    """One document a line: `time`, `level`, `logger`, `message`, `request_id` and `error` where there are such, and the
    fields that the line was given (`extra={"fields": {…}}`)."""

    def format(self, record: logging.LogRecord) -> str:
        document: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": self.clean(record.getMessage()),
        }
        request = about.get()
        if request is not None:
            document["request_id"] = request.request_id
        for name, value in getattr(record, "fields", {}).items():
            document.setdefault(name, self.clean(value) if isinstance(value, str) else value)
        if record.exc_info:
            document["error"] = self.clean(self.formatException(record.exc_info))
        return msgspec.json.encode(document).decode()


FORMATS = {"text": TextLines, "json": JsonLines}


def configure(form: Literal["text", "json"], secrets: Iterable[str | None] = ()) -> None:
    """Everything that this process logs goes to standard error, one line an event."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(FORMATS[form]([secret for secret in secrets if secret]))
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    for noisy in NOISY:
        logging.getLogger(noisy).setLevel(logging.WARNING)
