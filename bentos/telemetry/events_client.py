"""A worker's way to the consumer: one connection, many batches in flight, and a consumer started when there is none."""

import asyncio
import contextlib
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec

from bentos.telemetry.rendezvous import output_path, run_folder, socket_to_connect
from bentos.telemetry.wire import Batch, Reply, frame_of, read_frame
from contracts.errors import Overloaded, Refused, Unreachable
from contracts.events import Event
from contracts.live_items import ItemChange

# The folder that holds the package `bentos`: the checkout, or a Bento's `src`.
_ROOT = Path(__file__).resolve().parents[2]
# A consumer that cannot start must not be tried in a tight loop: the pause doubles with each failure.
_RESPAWN_S, _RESPAWN_MAX_S = 0.5, 15.0
_POLL_S = 0.02
# What a write says of a connection that has just gone: uvloop has a RuntimeError for it.
_GONE = (OSError, RuntimeError)


class EventsClient:
    """For one event loop.

    Args:
        home: of the event store.
        online_store, event_log: as in the settings; the consumer that this client starts writes to them.
        deadline_s: how long one `send` may take, starting a consumer included.
    """

    def __init__(
        self, home: Path, *, online_store: str = "sqlite", event_log: str = "sqlite", deadline_s: float = 10.0
    ) -> None:
        self._home = home.resolve()
        self._settings = {"STREAMREC_ONLINE_STORE": online_store, "STREAMREC_EVENT_LOG": event_log}
        self._deadline_s = deadline_s
        self._connection: _Connection | None = None
        self._connecting = asyncio.Lock()
        self._child: subprocess.Popen[bytes] | None = None
        self._spawn_not_before = float("-inf")
        self._failed_starts = 0
        self._last_words = ""
        self._problem: str | None = None
        self._closed = False

    @property
    def healthy(self) -> str | None:
        """None, or why the last attempt to reach the consumer failed."""
        return self._problem

    async def start(self) -> None:
        """Connect ahead of the first event. Never raises: what is unreachable now is tried again then."""
        with contextlib.suppress(Unreachable):
            await self._connect(asyncio.get_running_loop().time() + self._deadline_s)

    async def send(self, events: Sequence[Event]) -> tuple[int, int]:
        """Store events; returns (accepted, duplicates) after they are durable.

        When the consumer dies in between, the batch is sent again: what had been stored then counts as a duplicate.

        Raises:
            Unreachable: no consumer within the deadline, or it cannot write.
            Overloaded: its queue is full.
        """
        if not events:
            return 0, 0
        reply = await self._send(events, ())
        return reply.accepted, reply.duplicates

    async def change(self, items: Sequence[ItemChange]) -> tuple[int, list[str]]:
        """Change the live catalogue; returns its version and the ids that changed, after they are durable.

        A change that is sent again because the consumer died changes nothing the second time.

        Raises:
            Refused: the catalogue takes no more items. Unreachable: as `send`.
        """
        reply = await self._send((), items)
        return reply.version, reply.changed

    async def _send(self, events: Sequence[Event], items: Sequence[ItemChange]) -> Reply:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._deadline_s
        while True:
            connection = await self._connect(deadline)
            try:
                async with asyncio.timeout_at(deadline):
                    reply = await connection.ask(events, items)
            except TimeoutError as error:
                raise self._failed(f"the event consumer did not answer within {self._deadline_s:g} s") from error
            except ConnectionError:
                await asyncio.sleep(_POLL_S)
                continue  # it died: the next one is asked, until the deadline
            if reply.retry_after_s is not None:
                raise Overloaded(reply.problem or "overloaded", retry_after_s=reply.retry_after_s)
            if reply.refused:
                raise Refused(reply.problem or "refused")
            if reply.problem is not None:
                raise Unreachable(reply.problem) if items else self._failed(reply.problem)
            self._problem = None
            return reply

    async def close(self) -> None:
        """Say good-bye, so that a consumer without other clients ends at once and not after its patience."""
        self._closed = True
        connection, self._connection = self._connection, None
        if connection:
            await connection.close()
        if self._child:
            # Reap it if it ends right away; otherwise it serves other workers and outlives this one.
            loop = asyncio.get_running_loop()
            until = loop.time() + 0.2
            while self._child.poll() is None and loop.time() < until:
                await asyncio.sleep(_POLL_S)

    async def _connect(self, deadline: float) -> "_Connection":
        if self._closed:
            raise Unreachable("this events client is closed")
        if self._connection and self._connection.alive:
            return self._connection
        loop = asyncio.get_running_loop()
        async with self._connecting:
            while not (self._connection and self._connection.alive):
                self._connection = await _open(self._home)
                if self._connection:
                    self._failed_starts, self._last_words = 0, ""
                    break
                if loop.time() >= deadline:
                    raise self._failed(f"no event consumer answers for {self._home}{self._last_words}")
                self._spawn(loop.time())
                await asyncio.sleep(_POLL_S)
            self._problem = None
            return self._connection

    def _spawn(self, now: float) -> None:
        """Start a consumer unless ours is still starting. If another worker was faster, ours finds the lock taken."""
        if self._child:
            ended = self._child.poll()
            if ended is None:
                return
            self._child = None
            if ended:
                self._failed_starts += 1
                self._last_words = self._last_line()
                pause = _RESPAWN_S * 2.0 ** min(self._failed_starts, 10)
                self._spawn_not_before = now + min(pause, _RESPAWN_MAX_S)
        if now < self._spawn_not_before:
            return
        self._spawn_not_before = now + _RESPAWN_S
        path = os.pathsep.join(filter(None, (str(_ROOT), os.environ.get("PYTHONPATH"))))
        # In the environment and not in the arguments: a Redis URL may hold a password.
        environment = os.environ | {"PYTHONPATH": path} | self._settings
        try:
            run_folder(self._home)
            with output_path(self._home).open("ab") as output:
                self._child = subprocess.Popen(
                    [sys.executable, "-m", "bentos.telemetry.consumer", "--home", str(self._home)],
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    env=environment,
                    start_new_session=True,  # Ctrl-C is for the workers; it ends after them
                )
        except OSError as error:
            raise self._failed(f"the event consumer cannot be started: {error}") from error

    def _last_line(self) -> str:
        """What a consumer that could not start has said."""
        try:
            lines = output_path(self._home).read_text(errors="replace").strip().splitlines()
        except OSError:
            return ""
        return f": {lines[-1][:300]}" if lines else ""

    def _failed(self, problem: str) -> Unreachable:
        self._problem = problem
        return Unreachable(problem, next_command=f"look into {output_path(self._home)}")


async def _open(home: Path) -> "_Connection | None":
    path = socket_to_connect(home)
    if path is None:
        return None
    try:
        reader, writer = await asyncio.open_unix_connection(str(path))
    except OSError:
        return None  # not there yet, or left by a killed one
    return _Connection(reader, writer)


class _Connection:
    """Batches out, replies in, matched by number."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        self._asked: dict[int, asyncio.Future[Reply]] = {}
        self._number = 0
        self.alive = True
        self._listening = asyncio.create_task(self._listen(reader))

    async def ask(self, events: Sequence[Event], items: Sequence[ItemChange] = ()) -> Reply:
        """
        Raises:
            ConnectionError: the consumer went away before it answered.
        """
        if not self.alive:
            raise ConnectionResetError("the consumer has gone")
        self._number += 1
        number = self._number
        answer: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._asked[number] = answer
        try:
            try:
                self._writer.write(frame_of(Batch(number, list(events), list(items))))
                await self._writer.drain()
            except _GONE as error:
                self.alive = False
                raise ConnectionResetError("the consumer has gone") from error
            return await answer
        finally:
            self._asked.pop(number, None)

    async def close(self) -> None:
        with contextlib.suppress(*_GONE):
            self._writer.write(frame_of(Batch(0, [])))
            await self._writer.drain()
        self._listening.cancel()
        await asyncio.gather(self._listening, return_exceptions=True)

    async def _listen(self, reader: asyncio.StreamReader) -> None:
        decoder = msgspec.msgpack.Decoder(Reply)
        try:
            while True:
                reply = decoder.decode(await read_frame(reader))
                answer = self._asked.get(reply.number)
                if answer and not answer.done():
                    answer.set_result(reply)
        except (EOFError, OSError, ValueError, msgspec.DecodeError):
            pass
        finally:
            self.alive = False
            for answer in self._asked.values():
                if not answer.done():
                    answer.set_exception(ConnectionResetError("the consumer has gone"))
            self._writer.close()
