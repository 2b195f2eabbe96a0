"""Reads of two real Redis: what the primary is slow with, or away for, the replica answers."""

import asyncio
import shutil

import pytest

from bentos.recommender.reads.hedge import LEAST
from bentos.recommender.reads.remote import RemoteReads
from features.online.base import Interaction
from features.online.redis import RedisStore
from tests.redis_server import RedisServer
from tests.slow_proxy import SlowProxy

pytestmark = pytest.mark.redis


@pytest.fixture
def server(tmp_path):
    if shutil.which("redis-server") is None:
        pytest.skip("redis-server is not on the PATH: hedged reads are NOT tested")
    made = RedisServer(tmp_path)
    made.start()
    yield made
    made.stop()


def test_a_slow_primary_is_hedged_and_one_that_is_away_is_passed_over(server):
    with SlowProxy(server.port) as proxy:
        primary = RedisStore(f"redis://127.0.0.1:{proxy.port}/0", timeout_s=10.0)
        replica = RedisStore(server.url, timeout_s=10.0)
        replica.append_interactions([(f"u{n}", Interaction(f"i{n}", "click", 5)) for n in range(100)])
        reads = RemoteReads(primary, replica, limit_s=10.0, keep_s=0)

        async def read(*users):
            return [(await reads.read_user(f"u{n}")).last[0].item_id for n in users]

        async def main():
            # As many as it takes to know how long reads take: of later ones a busy machine would have some hedged, and
            # the budget would be spent.
            assert await read(*range(LEAST)) == [f"i{n}" for n in range(LEAST)]
            proxy.delay_s = 5.0  # within the limit: without a replica one would wait
            assert await read(40, 41) == ["i40", "i41"]
            assert reads.counts["replica_won"] >= 2
            assert reads.breakers["online_store"].state == "closed"
            proxy.delay_s = 0.0
            await asyncio.to_thread(proxy.stop)
            assert await read(*range(50, 60)) == [f"i{n}" for n in range(50, 60)]
            assert reads.breakers["online_store"].state == "open"
            assert reads.counts["failed_over"] >= 5
            primary.close()
            replica.close()
            await asyncio.sleep(0)

        asyncio.run(main())
