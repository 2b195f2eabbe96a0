"""A request whose client has left: nothing of it is begun any more."""

import asyncio
import threading

import pytest

from bentos.recommender.attended import Attended
from bentos.recommender.compute import Compute
from bentos.recommender.http import ClientGone


class Client:
    """`receive` after the body: it comes back when the client has left."""

    def __init__(self):
        self.left = asyncio.Event()

    async def receive(self):
        await self.left.wait()
        return {"type": "http.disconnect"}


def test_a_job_that_waits_for_the_compute_thread_is_skipped_and_counted():
    async def main():
        compute, client, gate, ran = Compute(), Client(), threading.Event(), []
        held = asyncio.ensure_future(compute(gate.wait))

        async def handle():
            async with Attended(client.receive):
                return await compute(lambda: ran.append(True))

        handled = asyncio.ensure_future(handle())
        while compute.waiting < 2:
            await asyncio.sleep(0)
        client.left.set()
        with pytest.raises(ClientGone):
            await handled
        gate.set()
        await held
        await compute(lambda: None)
        assert ran == []
        assert compute.not_begun == {"queue": 1}
        compute.close()

    asyncio.run(main())


def test_a_client_that_stays_gets_what_was_made_and_nobody_watches_it_any_more():
    async def main():
        client = Client()
        async with Attended(client.receive):
            await asyncio.sleep(0)
            made = 7
        await asyncio.sleep(0)
        client.left.set()
        await asyncio.sleep(0)
        assert made == 7
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(main())


def test_a_deadline_inside_and_an_error_of_the_block_are_still_what_they_were():
    async def main():
        with pytest.raises(TimeoutError):
            async with Attended(Client().receive), asyncio.timeout(0):
                await asyncio.sleep(60)
        with pytest.raises(ZeroDivisionError):
            async with Attended(Client().receive):
                _ = 1 / 0

    asyncio.run(main())


def test_a_task_that_is_cancelled_by_somebody_else_is_cancelled():
    async def main():
        async def handle():
            async with Attended(Client().receive):
                await asyncio.sleep(60)

        task = asyncio.ensure_future(handle())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())


def test_a_server_that_has_nothing_more_to_say_is_no_client_that_has_left():
    async def main():
        async def receive():
            raise RuntimeError("there is no more")

        async with Attended(receive):
            await asyncio.sleep(0.001)

    asyncio.run(main())
