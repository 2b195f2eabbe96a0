"""A server whose delays are known: an asyncio server in a thread of this process."""

import asyncio
import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

BODY = json.dumps({"items": [{"item_id": "i1"}, {"item_id": "i2"}], "degradation": "full"}).encode()


@dataclass
class Stub:
    """`hold(n)`: seconds before the n-th request is answered; None closes the connection instead."""

    hold: Callable[[int], float | None]
    status: Callable[[int], int] = lambda n: 200
    port: int = 0
    connections: int = 0
    asked: list[bytes] = field(default_factory=list)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
                self.asked.append(await reader.readexactly(length))
                n = len(self.asked) - 1
                seconds = self.hold(n)
                if seconds is None:
                    break
                if seconds:
                    await asyncio.sleep(seconds)
                writer.write(b"HTTP/1.1 %d X\r\ncontent-length: %d\r\n\r\n" % (self.status(n), len(BODY)) + BODY)
        writer.close()

    @contextlib.contextmanager
    def running(self) -> Iterator["Stub"]:
        loop, started = asyncio.new_event_loop(), threading.Event()

        async def begin() -> asyncio.Server:
            server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
            self.port = server.sockets[0].getsockname()[1]
            return server

        def work() -> None:
            server = loop.run_until_complete(begin())
            started.set()
            loop.run_forever()
            server.close()
            for task in asyncio.all_tasks(loop):
                task.cancel()
            loop.run_until_complete(asyncio.sleep(0))
            loop.close()

        thread = threading.Thread(target=work)
        thread.start()
        started.wait(10)
        try:
            yield self
        finally:
            loop.call_soon_threadsafe(loop.stop)
            thread.join(10)
