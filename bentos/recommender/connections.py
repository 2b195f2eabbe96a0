"""Connections of one worker: how many, how long each may take, how much it may hold. What breaks a bound is refused
with a problem document where the client can still read one, and closed; everyone else is served.

A request reaches the application when its body is whole. So one that is being dripped holds a socket and the bytes that
came, never a place among the requests in flight.
"""

import asyncio
import http
from collections import Counter, OrderedDict
from dataclasses import dataclass
from typing import Any

import httptools
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from bentos.recommender.http import DISCARD_BYTES, PROBLEM_JSON, RETRY_SOON, WHOLE, HttpProblem, problem_document
from bentos.recommender.request_ids import new_request_id
from contracts.http import MAX_BODY_BYTES

KEEP_ALIVE_S = 75
SMALL_BODY_BYTES = 16 << 10  # the first bytes of a body always have room: large ones cannot shut out the others
PIPELINED = 64
LINGER_S = 1.0
REASONS = ("slow", "bounds", "malformed", "evicted", "full")


@dataclass(frozen=True)
class Bounds:
    """
    headers_s, body_s: from the first moment of waiting for a request's header, and for its body, to its last byte.
    write_s: a client that takes nothing of its answer for so long is gone.
    body_bytes: of one body; bodies_bytes: of all that are not answered yet, each over `SMALL_BODY_BYTES`.
    """

    connections: int = 10_000
    headers_s: float = 10.0
    body_s: float = 10.0
    write_s: float = 10.0
    header_bytes: int = 16 << 10
    headers: int = 100
    body_bytes: int = MAX_BODY_BYTES
    bodies_bytes: int = 64 << 20


class Connections:
    """All connections of the process. When there is no room for one more, one that has nothing under way goes: of those
    that never sent a whole request the oldest, else of those kept alive the one that has been quiet for longest.
    """

    def __init__(self, bounds: Bounds) -> None:
        self.bounds = bounds
        self.open = 0
        self.held_bytes = 0  # of bodies, see `Bounds.bodies_bytes`
        self.draining = False
        self.closed: Counter[str] = Counter()  # by reason, since the start
        self._fresh: OrderedDict[BoundedProtocol, None] = OrderedDict()
        self._quiet: OrderedDict[BoundedProtocol, None] = OrderedDict()

    def add(self, connection: "BoundedProtocol") -> bool:
        """False: all that are here have a request under way."""
        self.open += 1
        if self.open > self.bounds.connections:
            idle = self._fresh or self._quiet
            if not idle:
                return False
            oldest, _ = idle.popitem(last=False)
            oldest.abort("evicted")
        self._fresh[connection] = None
        return True

    def busy(self, connection: "BoundedProtocol") -> None:
        self._fresh.pop(connection, None)
        self._quiet.pop(connection, None)

    def quiet(self, connection: "BoundedProtocol") -> None:
        self._quiet[connection] = None

    def remove(self, connection: "BoundedProtocol") -> None:
        self.open -= 1
        self.busy(connection)


class _Broken(httptools.HttpParserError):
    """Ends the parsing from inside one of its callbacks."""


class BoundedProtocol(HttpToolsProtocol):
    """One connection. Set `table` before the first."""

    table: Connections

    _waits_for = ""  # `headers` or `body`, while its timer runs
    _due: asyncio.TimerHandle | None = None
    _write_due: asyncio.TimerHandle | None = None
    _phase = "idle"  # of what the client sends: `idle`, `headers`, `body`
    _raw = 0  # bytes of that phase that came in chunks of their own
    _chunk = 0
    _held: RequestResponseCycle | None = None  # its body is not whole yet
    _counted = 0  # bytes of it in `table.held_bytes`
    _too_large = False
    _ended = False  # what comes now is thrown away
    _counts = False  # among `table.open`
    _problem: HttpProblem | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._counts = True
        if not self.table.add(self):
            self.table.closed["full"] += 1
            self._ended = True
            transport.write(_raw_answer(HttpProblem(503, "all connections are busy", headers=RETRY_SOON)))
            transport.close()
            return
        self._wait_for("headers")

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        if self._write_due is not None:
            self._write_due.cancel()
        self._release()
        if self._counts:
            self._counts = False
            self.table.remove(self)
        if self._held is not None:
            self._held.disconnected = True
            self._held = None
        super().connection_lost(exc)

    def abort(self, reason: str) -> None:
        """Close now; what has not been written is lost."""
        self.table.closed[reason] += 1
        self._ended = True
        self.transport.abort()

    def data_received(self, data: bytes) -> None:
        self._chunk = len(data)
        if self._ended:
            self._raw += self._chunk
            if self._raw > DISCARD_BYTES:
                self.transport.abort()
            return
        self._unset_keepalive_if_required()
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            # There is nothing to upgrade to. It is answered as what else it is, and nothing after it is believed.
            self.cycle.keep_alive = False
            self._ended, self._raw = True, 0
            return
        except httptools.HttpParserError:
            problem, self._problem = self._problem, None
            if problem is None:
                self._refuse(HttpProblem(400, "this is not HTTP/1.1"), "malformed")
            else:
                self._refuse(problem, "bounds")
            return
        if self._ended:
            return
        if self._phase == "idle":
            if self.cycle is None or self.cycle.response_complete:
                self._wait_for("headers")  # line ends between requests, which the parser skips
            return
        self._raw += self._chunk
        bounds = self.table.bounds
        if self._phase == "headers":
            if self._raw > bounds.header_bytes:
                self._refuse(self._headers_too_large(), "bounds")
                return
        elif self._raw > DISCARD_BYTES + bounds.body_bytes:
            self._refuse(self._body_too_large(), "bounds")
            return
        self._wait_for(self._phase)

    # --- what the parser tells, in this order -----------------------------------------------------------------------

    def on_message_begin(self) -> None:
        self._phase, self._raw = "headers", -self._chunk  # this chunk may hold other requests too
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        super().on_header(name, value)
        if len(self.headers) > self.table.bounds.headers:
            self._break(HttpProblem(431, f"a request may have {self.table.bounds.headers} header fields"))

    def on_headers_complete(self) -> None:
        bounds = self.table.bounds
        if self._raw + 2 * self._chunk > bounds.header_bytes:  # it may be: count
            size = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
            if size > bounds.header_bytes:
                self._break(self._headers_too_large())
        if len(self.pipeline) >= PIPELINED:
            self._break(HttpProblem(429, f"{PIPELINED} requests of this connection wait", headers=RETRY_SOON))
        self._stop_timer()
        self._phase, self._raw = "body", -self._chunk
        if self.expect_100_continue and self._declared() > bounds.body_bytes:
            self._break(self._body_too_large())
        super().on_headers_complete()
        if self.table.draining:
            self.cycle.keep_alive = False
        if self.scope["http_version"] not in ("1.1", "1.0"):  # the parser takes 0.9 and 2.0 too
            raise _Broken("another version of HTTP")

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        """Not before the body is whole."""
        if not cycle.more_body:
            self._start(cycle)
            return
        self._held = cycle
        if cycle.waiting_for_100_continue:
            cycle.waiting_for_100_continue = False
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, body: bytes) -> None:
        cycle = self.cycle
        if self._too_large or cycle.response_complete:
            return
        size = len(cycle.body) + len(body)
        if size > self.table.bounds.body_bytes:
            self._too_large = True
            self._release()
            cycle.body.clear()
            return
        cycle.body += body
        if size > SMALL_BODY_BYTES:
            self._hold(size - SMALL_BODY_BYTES)
        if size > HIGH_WATER_LIMIT and self._held is not cycle:  # behind another request: it has time
            self.flow.pause_reading()

    def on_message_complete(self) -> None:
        self._stop_timer()
        self._phase = "idle"
        if self._too_large:
            self._break(self._body_too_large())
        super().on_message_complete()
        if self._held is not None:
            held, self._held = self._held, None
            self._start(held)

    # --- what the application does ----------------------------------------------------------------------------------

    def _start(self, cycle: RequestResponseCycle) -> None:
        self.table.busy(self)
        cycle.scope[WHOLE] = True  # type: ignore[literal-required]
        super()._start_asgi_task(cycle, self.app)

    def on_response_complete(self) -> None:
        self._release()
        super().on_response_complete()
        if self.transport.is_closing():
            if self.transport.get_write_buffer_size():  # the client may never take it
                self._wait_for_write()
        elif self.pipeline:
            self.flow.pause_reading()  # not before all that wait are answered
        elif self._held is not None:
            self.table.quiet(self)
        elif self.timeout_keep_alive_task is not None:
            self.table.quiet(self)
            if self._phase != "idle":  # the timer of what is coming in runs
                self._unset_keepalive_if_required()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._wait_for_write()

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._write_due is not None:
            self._write_due.cancel()
            self._write_due = None

    def timeout_keep_alive_handler(self) -> None:
        if self.transport.get_write_buffer_size():
            self.abort("slow")
        else:
            super().timeout_keep_alive_handler()

    # --- ends ---------------------------------------------------------------------------------------------------------

    def drain(self) -> None:
        """The answers that have not begun will say `connection: close`."""
        for cycle in (self.cycle, *(cycle for cycle, _ in self.pipeline)):
            if cycle is not None and not cycle.response_started:
                cycle.keep_alive = False

    @property
    def receiving(self) -> bool:
        """A request has begun to come in and is not whole."""
        return self._phase != "idle" and not self._ended

    @property
    def under_way(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _break(self, problem: HttpProblem) -> None:
        self._problem = problem
        raise _Broken(problem.detail)

    def _refuse(self, problem: HttpProblem, reason: str) -> None:
        """Answer, close our side, and read on for a while: with unread bytes a close would be a reset, and the client
        would never see the answer.
        """
        self._stop_timer()
        self.table.busy(self)
        if self.under_way and (self._held is None or self.cycle is not self._held):
            self.abort(reason)  # an answer before this one is not out yet, and the client breaks the protocol
            return
        self.table.closed[reason] += 1
        self._ended, self._raw, self._held = True, 0, None
        self._release()
        self.transport.write(_raw_answer(problem))
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.flow.resume_reading()
        self._due = self.loop.call_later(LINGER_S, self.transport.abort)

    def _wait_for(self, what: str) -> None:
        if self._waits_for != what:
            self._stop_timer()
            self._waits_for = what
            bounds = self.table.bounds
            self._due = self.loop.call_later(bounds.headers_s if what == "headers" else bounds.body_s, self._late)

    def _late(self) -> None:
        waited, self._waits_for, self._due = self._waits_for, "", None
        if self.transport.is_closing():
            return
        if self.under_way and self._held is None:  # its own answer keeps it waiting
            self._wait_for(waited)
        elif self._held is not None:
            detail = f"the body did not come within {self.table.bounds.body_s:g} s"
            self._refuse(HttpProblem(408, detail), "slow")
        else:
            self.table.closed["slow"] += 1
            self.transport.close()

    def _wait_for_write(self) -> None:
        if self._write_due is None:
            self._write_due = self.loop.call_later(self.table.bounds.write_s, self.abort, "slow")

    def _stop_timer(self) -> None:
        self._waits_for = ""
        if self._due is not None:
            self._due.cancel()
            self._due = None

    def _hold(self, counted: int) -> None:
        self.table.held_bytes += counted - self._counted
        self._counted = counted
        if self.table.held_bytes > self.table.bounds.bodies_bytes:
            self._break(HttpProblem(429, "too many large bodies at once", headers=RETRY_SOON))

    def _release(self) -> None:
        self.table.held_bytes -= self._counted
        self._counted = 0

    def _declared(self) -> int:
        lengths = [int(value) for name, value in self.headers if name == b"content-length" and value.isdigit()]
        return max(lengths, default=0)

    def _headers_too_large(self) -> HttpProblem:
        return HttpProblem(431, f"a request line and its header may have {self.table.bounds.header_bytes} bytes")

    def _body_too_large(self) -> HttpProblem:
        return HttpProblem(413, f"a body may have {self.table.bounds.body_bytes} bytes")


def _raw_answer(problem: HttpProblem) -> bytes:
    request_id = new_request_id()
    body = problem_document(problem, request_id)
    fields = [
        (b"content-type", PROBLEM_JSON),
        (b"content-length", str(len(body)).encode()),
        (b"x-request-id", request_id.encode()),
        (b"connection", b"close"),
        *problem.headers,
    ]
    status = f"HTTP/1.1 {problem.status} {http.HTTPStatus(problem.status).phrase}\r\n".encode()
    return b"".join([status, *(b"%s: %s\r\n" % field for field in fields), b"\r\n", body])
