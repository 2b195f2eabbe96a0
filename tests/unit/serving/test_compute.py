import asyncio
import threading

import pytest

from bentos.recommender.compute import Compute
from contracts.errors import Overloaded


def test_jobs_run_in_order_on_one_thread_that_is_not_the_callers():
    async def main():
        compute = Compute()
        seen = []

        def job(i):
            seen.append((i, threading.get_ident()))
            return i * i

        results = await asyncio.gather(*(compute(lambda i=i: job(i)) for i in range(20)))
        compute.close()
        assert results == [i * i for i in range(20)]
        assert [i for i, _ in seen] == list(range(20))
        assert {thread for _, thread in seen} != {threading.get_ident()}
        assert len({thread for _, thread in seen}) == 1
        assert compute.waiting == 0

    asyncio.run(main())


def test_a_full_queue_refuses_and_takes_again_when_it_has_room():
    async def main():
        compute = Compute(depth=2)
        gate = threading.Event()
        running = [asyncio.ensure_future(compute(gate.wait)) for _ in range(2)]
        await asyncio.sleep(0)  # let both be put in
        with pytest.raises(Overloaded):
            await compute(lambda: None)
        gate.set()
        await asyncio.gather(*running)
        assert await compute(lambda: "room") == "room"
        compute.close()

    asyncio.run(main())


def test_what_a_job_raises_reaches_its_caller_and_the_thread_goes_on():
    async def main():
        compute = Compute()
        with pytest.raises(ZeroDivisionError):
            await compute(lambda: 1 / 0)
        assert await compute(lambda: 1) == 1
        compute.close()

    asyncio.run(main())


def test_a_cancelled_job_that_has_not_begun_never_runs():
    async def main():
        compute = Compute()
        gate, ran = threading.Event(), []
        first = asyncio.ensure_future(compute(gate.wait))
        second = asyncio.ensure_future(compute(lambda: ran.append(True)))
        await asyncio.sleep(0)
        second.cancel()
        await asyncio.gather(second, return_exceptions=True)
        gate.set()
        await first
        await compute(lambda: None)
        assert ran == []
        assert compute.waiting == 0
        compute.close()

    asyncio.run(main())


def test_what_has_begun_goes_before_what_has_not():
    async def main():
        compute = Compute()
        gate, ran = threading.Event(), []
        jobs = [asyncio.ensure_future(compute(gate.wait))]
        for name, begun in (("a new one", False), ("another", False), ("one that has begun", True)):
            jobs.append(asyncio.ensure_future(compute(lambda name=name: ran.append(name), begun=begun)))
        await asyncio.sleep(0)
        gate.set()
        await asyncio.gather(*jobs)
        assert ran == ["one that has begun", "a new one", "another"]
        compute.close()

    asyncio.run(main())


def test_how_far_the_clock_runs_ahead_is_told_by_time_and_not_by_the_number_of_jobs():
    compute = Compute()
    compute.close()
    for _ in range(200):  # as measured beside a busy loop: the small one waits for its turn, and then is done
        compute._learn(6e-3, 0.25e-3)
        compute._learn(8e-3, 5.5e-3)
    assert compute.stretch == pytest.approx(14 / 5.75, rel=0.1)
    compute.forget_stretch()
    assert compute.stretch == 1.0
