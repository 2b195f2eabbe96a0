"""The consumer: the one process that writes events and streaming features.

    python -m bentos.telemetry.consumer --home .streamrec

The log is `events.db`, whose transactions hold the streaming features too, or a Redis Stream. An online store apart
from the log is kept in step by `teller.py`.

Workers start this process when they need it. It holds `run/events.lock` (a second one ends at once, exit 0), listens on
`run/events.sock`, and gathers what arrives within a few milliseconds into one transaction: a disk sync for many batches
instead of one each. A batch is answered after its commit. It ends on SIGTERM, soon after its last client has said
good-bye, or 10 s after its last client has vanished. On the side it has finished log segments rolled to Parquet, by a
process of its own: that is seconds of work which would hold up the answers here.
"""

import argparse
import asyncio
import contextlib
import fcntl
import os
import signal
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from bentos.catalogue.intake import CatalogueIntake
from bentos.catalogue.shared import SharedCatalogue
from bentos.telemetry.event_logs import EventLog, is_redis, open_event_log
from bentos.telemetry.event_store import EventStore
from bentos.telemetry.rendezvous import lock_path, run_folder, socket_to_bind
from bentos.telemetry.segments import segments
from bentos.telemetry.shown import count_shown
from bentos.telemetry.teller import Teller
from bentos.telemetry.wire import Batch, Reply, frame_of, read_frame
from contracts.errors import StreamRecError, Unreachable
from contracts.events import Event
from contracts.settings import Settings, load_settings
from features.online.base import OnlineStore
from features.online.open import open_store


@dataclass(frozen=True, slots=True)
class Pace:
    """How the consumer behaves in time."""

    gather_s: float = 0.003  # for other batches, before a commit
    max_commit: int = 5_000  # events in one transaction
    max_waiting: int = 20_000  # events not yet committed; past it, `Overloaded`
    max_waiting_bytes: int = 64 << 20  # the same, as they came over the socket
    max_unanswered: int = 1_000  # batches of one client; past it, its next one stays in the socket
    alone_s: float = 10.0  # after the last client has vanished
    farewell_s: float = 0.5  # after the last client has said good-bye
    beat_s: float = 1.0  # between looks at the clock
    stay: bool = False  # under a supervisor: wait for the lock, and do not leave for want of clients
    count_s: float = 30.0  # between files of item counts
    count_idle_s: float = 600.0  # the same while no event comes: windows move on
    roll_s: float = 60.0  # between rolls, and between watermarks of an idle stream
    first_roll_s: float = 5.0  # what dead processes have left
    tell_limit: int = 1_000  # events told to another online store at a time
    tell_wait_s: float = 0.25  # that an answer waits for another online store, so that the next slate knows the event
    last_tell_s: float = 2.0  # at the end


@dataclass(slots=True)
class _Waiting:
    events: Sequence[Event]
    answer: "asyncio.Future[Reply]"
    number: int
    size: int  # bytes


@dataclass
class Consumer:
    """One event store, one loop, one thread for its transactions.

    Args:
        home: of the store; its lock must be held by the caller.
        other: an online store apart from the log that takes every event in; None where the log's own transactions
            hold the features.
        log: default: `events.db`. Closed at the end, as `other` is.
        max_items: items that may be put live.
        shared: the catalogue of several machines, where they share one.
        counts_items: have the counts of items laid down in a file, for the processes that serve.
    """

    home: Path
    other: OnlineStore | None = None
    pace: Pace = field(default_factory=Pace)
    log: EventLog | None = None
    max_items: int = 100_000
    counts_items: bool = False
    shared: SharedCatalogue | None = None
    _waiting: list[_Waiting] = field(default_factory=list)
    _waiting_events: int = 0
    _waiting_bytes: int = 0
    _arrived: asyncio.Event = field(default_factory=asyncio.Event)
    _stop: asyncio.Event = field(default_factory=asyncio.Event)
    _clients: set["asyncio.Task[None]"] = field(default_factory=set)
    _leave_at: float = 0.0
    _uncounted: bool = True
    _teller: Teller | None = None
    _roller: asyncio.subprocess.Process | None = None
    _counter: asyncio.subprocess.Process | None = None

    def __post_init__(self) -> None:
        self.catalogue = CatalogueIntake(self.home, self.max_items, self.shared)

    async def run(self, lock_inode: int | None = None) -> None:
        """Serve until told or left alone. `lock_inode`: end also when the lock file is no longer this one."""
        loop = asyncio.get_running_loop()
        store = self.log or EventStore(self.home)
        path = socket_to_bind(self.home)
        path.unlink(missing_ok=True)  # of a killed consumer: the lock says that no other lives
        before = os.umask(0o177)
        try:
            server = await asyncio.start_unix_server(self._serve, path=str(path), limit=1 << 20)
        finally:
            os.umask(before)
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        self._leave_at = loop.time() + self.pace.alone_s
        with ThreadPoolExecutor(1, "commit") as commits:
            if self.other:
                self._teller = Teller(store, self.other, limit=self.pace.tell_limit, pause_s=self.pace.beat_s, say=_say)
            telling = asyncio.create_task(self._teller.run()) if self._teller else None
            committing = asyncio.create_task(self._commit_until_stopped(store, commits))
            beating = asyncio.create_task(self._beat(store, commits, lock_inode))
            following = asyncio.create_task(self.catalogue.follow())
            try:
                await self._stop.wait()
            finally:
                server.close()
                path.unlink(missing_ok=True)
                self._arrived.set()
                await committing  # what was taken is answered
                beating.cancel()
                await asyncio.gather(beating, return_exceptions=True)
                if self._teller and telling:
                    await self._teller.close(self.pace.last_tell_s)
                    telling.cancel()
                    await asyncio.gather(telling, return_exceptions=True)
                for client in self._clients:
                    client.cancel()
                await asyncio.gather(*self._clients, return_exceptions=True)
                await self._end_helpers()
                store.close()
                following.cancel()
                await asyncio.gather(following, return_exceptions=True)
                self.catalogue.close()
                if self.other:
                    self.other.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        loop = asyncio.get_running_loop()
        me = asyncio.current_task()
        assert me is not None  # noqa: S101 - inside a task
        self._clients.add(me)
        decoder = msgspec.msgpack.Decoder(Batch)
        answers: set[asyncio.Task[None]] = set()
        room = asyncio.Semaphore(self.pace.max_unanswered)
        linger = self.pace.alone_s
        try:
            while True:
                await room.acquire()
                frame = await read_frame(reader)
                batch = decoder.decode(frame)
                if not (batch.events or batch.items):
                    linger = self.pace.farewell_s
                    break
                answer = asyncio.create_task(self._answer(batch, len(frame), writer))
                answers.add(answer)
                answer.add_done_callback(lambda _: room.release())
                answer.add_done_callback(answers.discard)
        except (EOFError, OSError, ValueError, msgspec.DecodeError):
            pass  # gone, or none of ours: either way this connection is over
        finally:
            if answers:
                await asyncio.gather(*answers, return_exceptions=True)
            self._clients.discard(me)
            self._leave_at = loop.time() + linger
            writer.close()

    async def _answer(self, batch: Batch, size: int, writer: asyncio.StreamWriter) -> None:
        full = self._waiting_events + len(batch.events) > self.pace.max_waiting
        if batch.items:  # few, and not to wait behind events: a file and a thread of their own
            reply = await self.catalogue.answer(batch)
        elif full or self._waiting_bytes + size > self.pace.max_waiting_bytes:
            reply = Reply(batch.number, problem="the event store is behind", retry_after_s=1)
        elif self._stop.is_set():
            return  # no answer: the client asks the next consumer
        else:
            waiting = _Waiting(batch.events, asyncio.get_running_loop().create_future(), batch.number, size)
            self._waiting.append(waiting)
            self._waiting_events += len(batch.events)
            self._waiting_bytes += size
            self._arrived.set()
            reply = await waiting.answer
            self._uncounted = True
            if self._teller and reply.problem is None:
                await self._teller.told(self.pace.tell_wait_s)
        with contextlib.suppress(OSError):
            writer.write(frame_of(reply))
            await writer.drain()

    async def _commit_until_stopped(self, store: EventLog, thread: ThreadPoolExecutor) -> None:
        loop = asyncio.get_running_loop()
        while not (self._stop.is_set() and not self._waiting):
            await self._arrived.wait()
            if not self._stop.is_set():
                await asyncio.sleep(self.pace.gather_s)
            taken: list[_Waiting] = []
            size = 0
            while self._waiting and (not taken or size + len(self._waiting[0].events) <= self.pace.max_commit):
                taken.append(self._waiting.pop(0))
                size += len(taken[-1].events)
            if not self._waiting and not self._stop.is_set():
                self._arrived.clear()
            if not taken:
                continue
            try:
                replies = await loop.run_in_executor(thread, self._commit, store, taken)
            except Exception as error:  # whatever it is, who waits is answered and the next commit is tried
                replies = [Reply(w.number, problem=f"event store: {error}") for w in taken]
            self._waiting_events -= size
            self._waiting_bytes -= sum(w.size for w in taken)
            for waiting, reply in zip(taken, replies, strict=True):
                if not waiting.answer.done():
                    waiting.answer.set_result(reply)

    def _commit(self, store: EventLog, taken: Sequence[_Waiting]) -> list[Reply]:
        try:
            counts = store.append([w.events for w in taken])
        except Exception as error:  # the process must go on: the next commit may find the disk free again
            advice = getattr(error, "next_command", None)
            _say(f"not stored: {error}" + (f"; next: {advice}" if advice else ""))
            return [Reply(w.number, problem=str(error)) for w in taken]
        return [Reply(w.number, a, d) for w, (a, d) in zip(taken, counts, strict=True)]

    async def _beat(self, store: EventLog, commits: ThreadPoolExecutor, lock_inode: int | None) -> None:
        loop = asyncio.get_running_loop()
        next_roll = loop.time() + self.pace.first_roll_s
        next_count = next_look = loop.time()
        while True:
            await asyncio.sleep(min(self.pace.beat_s, self.pace.farewell_s))
            alone = not self._clients and loop.time() >= self._leave_at and not self.pace.stay
            if alone or self._homeless(lock_inode):
                self._stop.set()
                return
            if self._teller:
                self._teller.look()
            if self.counts_items and loop.time() >= (next_count if self._uncounted else next_look):
                # Where several machines share a store, its events may be another one's.
                self._uncounted = self.other is not None
                next_count, next_look = loop.time() + self.pace.count_s, loop.time() + self.pace.count_idle_s
                try:
                    await self._start_counter()
                except OSError as error:
                    _say(f"item counts: {error}")
            if loop.time() >= next_roll:
                next_roll = loop.time() + self.pace.roll_s
                try:
                    await self._start_roller()
                    await self._keep(store, commits, time.time_ns() // 1000)
                except (Unreachable, OSError) as error:  # a full disk: the next round may find it free
                    _say(f"upkeep: {error}")

    async def _keep(self, store: EventLog, commits: ThreadPoolExecutor, now_us: int) -> None:
        loop = asyncio.get_running_loop()
        if self._teller:
            await self._teller.keep(self.home, now_us)
        elif isinstance(store, EventStore):
            # Part by part, so that no commit waits for all of them.
            await asyncio.to_thread(
                count_shown, self.home, lambda *part: commits.submit(store.add_shown, *part).result(), now_us
            )
        # Where the store's position is not known, nothing is taken from the log.
        taken = (self._teller.position or "") if self._teller else None
        await loop.run_in_executor(commits, store.advance, now_us, taken)

    async def _start_roller(self) -> None:
        if (self._roller and self._roller.returncode is None) or not _to_roll(self.home):
            return
        self._roller = await asyncio.create_subprocess_exec(*_ROLL, str(self.home))

    async def _start_counter(self) -> None:
        if not (self._counter and self._counter.returncode is None):
            self._counter = await asyncio.create_subprocess_exec(*_COUNT, str(self.home))

    async def _end_helpers(self) -> None:
        """They may be stopped anywhere: whoever comes next does their part again."""
        for helper in (self._roller, self._counter):
            if helper and helper.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    helper.terminate()
                await helper.wait()

    def _homeless(self, lock_inode: int | None) -> bool:
        """Whether the home was deleted, or made anew, under this process."""
        if lock_inode is None:
            return False
        try:
            return lock_path(self.home).stat().st_ino != lock_inode
        except OSError:
            return True


_ROLL = (sys.executable, "-m", "bentos.telemetry.roll", "--home")
_COUNT = (sys.executable, "-m", "bentos.telemetry.item_counts", "--home")


def _to_roll(home: Path) -> bool:
    return any(s.final for folder in (home / "log").glob("*") if folder.is_dir() for s in segments(folder))


def _say(words: str) -> None:
    """A line for `run/consumer.log`. It lies on the disk of the events: a full one must not raise here as well."""
    with contextlib.suppress(OSError, ValueError):
        print(f"{time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())} {words}", file=sys.stderr, flush=True)


def _shared_catalogue(settings: Settings) -> SharedCatalogue | None:
    return SharedCatalogue(settings.online_store) if settings.shares_a_catalogue else None


def _other_store(settings: Settings) -> OnlineStore | None:
    """None where the log's own transactions hold the features, and for a memory store, which is of the process that
    serves."""
    within = settings.online_store == "sqlite" and not is_redis(settings.event_log)
    return None if within or settings.online_store == "memory" else open_store(settings)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bentos.telemetry.consumer", description=__doc__.splitlines()[0])
    parser.add_argument("--home", type=Path, help="default: STREAMREC_HOME")
    parser.add_argument("--stay", action="store_true", help="for a supervisor: outlive all clients")
    given = parser.parse_args(arguments)
    try:
        settings = load_settings({"home": given.home})
        home = settings.home.resolve()
        run_folder(home)
        lock = os.open(lock_path(home), os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | (0 if given.stay else fcntl.LOCK_NB))
        except OSError:
            _say(f"another consumer has the event store of {home}: nothing to do")
            return 0
        os.ftruncate(lock, 0)
        os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
        consumer = Consumer(
            home,
            _other_store(settings),
            Pace(stay=given.stay, count_s=settings.item_counts_s),
            log=open_event_log(settings, home),
            max_items=settings.live_items,
            counts_items=settings.online_store != "memory",
            shared=_shared_catalogue(settings),
        )
        asyncio.run(consumer.run(os.fstat(lock).st_ino))
    except StreamRecError as error:
        _say(str(error))
        return error.exit_code
    except OSError as error:  # no room for the lock or the socket
        _say(f"the event consumer cannot start: {error}")
        return Unreachable.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
