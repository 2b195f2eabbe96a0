"""A worker in which nothing of Python runs any more: it hears neither its parent nor its parent's death."""

import subprocess
import sys

from tests.serving_processes import ROOT

PROGRAM = """
import asyncio, ctypes, uvicorn
from bentos.recommender import worker
from bentos.recommender.connections import Bounds, Connections

worker.HUNG_S = 1

def hang():
    ctypes.PyDLL(None).sleep(1000)  # native code that does not let the interpreter go

async def app(scope, receive, send):
    asyncio.get_running_loop().call_later(0.3, hang)
    await send({"type": "lifespan.startup.complete"})
    await receive()

worker.BoundedProtocol.table = table = Connections(Bounds())
config = uvicorn.Config(app, port=0, http=worker.BoundedProtocol, lifespan="on", log_level="critical")
worker.Server(config, None, table, 0.0).run()
"""


def test_it_says_where_it_hangs_and_ends():
    ended = subprocess.run([sys.executable, "-c", PROGRAM], cwd=ROOT, capture_output=True, timeout=60, check=False)
    assert ended.returncode == 1
    assert b"in hang" in ended.stderr
