"""Keep-alive HTTP/1.1 connections on one epoll loop: a send costs about 10 µs, an answer about 15.

Own sockets rather than asyncio: its timers and those of epoll are whole milliseconds, and the generator must send at
the moment that was planned. A caller that is due soon polls without waiting.
"""

import contextlib
import errno
import select
import socket
import time
from dataclasses import dataclass, field

import httptools

_RUNG = b'"degradation":'
_ITEM = b'"item_id"'


@dataclass(slots=True)
class Answer:
    """Moments are `time.perf_counter()` seconds. status: 0 where the connection broke or the time was up."""

    due: float
    sent: float
    done: float
    status: int
    rung: str = ""
    items: int = 0


@dataclass(slots=True)
class _Connection:
    socket: socket.socket
    out: bytes = b""
    due: float = 0.0
    sent: float = 0.0
    busy: bool = False
    whole: bool = False
    kept: bool = False  # the answer leaves the connection open; the parser knows it in its callbacks alone
    body: list[bytes] = field(default_factory=list)
    parser: httptools.HttpResponseParser | None = None

    # httptools calls these
    def on_body(self, body: bytes) -> None:
        self.body.append(body)

    def on_message_complete(self) -> None:
        assert self.parser is not None
        self.whole, self.kept = True, self.parser.should_keep_alive()


class Connections:
    """Opens as many as are needed at once, at most `limit`."""

    def __init__(self, host: str, port: int, *, limit: int, timeout_s: float) -> None:
        self._address = (host, port)
        self._limit = limit
        self._timeout_s = timeout_s
        self._epoll = select.epoll()
        self._all: dict[int, _Connection] = {}
        self._free: list[_Connection] = []
        self._failed: list[Answer] = []
        self._look_at = 0.0

    @property
    def busy(self) -> int:
        return len(self._all) - len(self._free)

    def send(self, request: bytes, due: float) -> bool:
        """False: all connections are busy and there may be no more."""
        if self._free:
            connection = self._free.pop()
        elif len(self._all) < self._limit:
            connection = self._open()
        else:
            return False
        connection.busy, connection.due, connection.out = True, due, request
        connection.sent = time.perf_counter()
        self._write(connection)
        return True

    def poll(self, wait_s: float) -> list[Answer]:
        """What has come within `wait_s` (rounded up to milliseconds; 0 does not wait)."""
        answers: list[Answer] = []
        for number, event in self._epoll.poll(wait_s):
            connection = self._all[number]
            if event & select.EPOLLOUT and connection.out:
                self._write(connection)
            if event & ~select.EPOLLOUT and number in self._all:
                self._read(connection, answers)
        now = time.perf_counter()
        if now > self._look_at:
            self._look_at = now + 0.05
            for connection in [c for c in self._all.values() if c.busy and now - c.sent > self._timeout_s]:
                self._fail(connection)
        answers += self._failed
        self._failed = []
        return answers

    def close(self) -> None:
        for connection in self._all.values():
            connection.socket.close()
        self._all.clear()
        self._epoll.close()

    def _open(self) -> _Connection:
        made = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        made.setblocking(False)
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection = _Connection(made)
        connection.parser = httptools.HttpResponseParser(connection)
        self._all[made.fileno()] = connection
        self._epoll.register(made.fileno(), select.EPOLLIN)
        made.connect_ex(self._address)  # what went wrong shows at the first send
        return connection

    def _write(self, connection: _Connection) -> None:
        try:
            connection.out = connection.out[connection.socket.send(connection.out) :]
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.ENOTCONN):
                self._fail(connection)
                return
        wanted = select.EPOLLIN | select.EPOLLOUT if connection.out else select.EPOLLIN
        self._epoll.modify(connection.socket.fileno(), wanted)

    def _read(self, connection: _Connection, answers: list[Answer]) -> None:
        assert connection.parser is not None
        try:
            data = connection.socket.recv(262_144)
            if data:
                connection.parser.feed_data(data)
        except BlockingIOError:
            return
        except (OSError, httptools.HttpParserError):
            data = b""
        if not data:
            self._fail(connection)
        elif connection.whole:
            body = b"".join(connection.body)
            status = connection.parser.get_status_code()
            answers.append(
                Answer(connection.due, connection.sent, time.perf_counter(), status, _rung(body), body.count(_ITEM))
            )
            connection.body.clear()
            connection.busy = connection.whole = False
            if connection.kept:
                self._free.append(connection)
            else:
                self._drop(connection)

    def _fail(self, connection: _Connection) -> None:
        if connection.busy:
            self._failed.append(Answer(connection.due, connection.sent, time.perf_counter(), 0))
        self._drop(connection)

    def _drop(self, connection: _Connection) -> None:
        with contextlib.suppress(ValueError):
            self._free.remove(connection)
        self._all.pop(connection.socket.fileno(), None)
        connection.socket.close()  # which also takes it out of epoll


def _rung(body: bytes) -> str:
    at = body.find(_RUNG)
    if at < 0:
        return ""
    start = body.index(b'"', at + len(_RUNG)) + 1
    return body[start : body.index(b'"', start)].decode()
