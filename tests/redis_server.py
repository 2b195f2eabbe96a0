"""A real Redis for tests: `from tests.redis_server import redis_url` in a conftest makes the fixture known there.

Without redis-server these tests are skipped on a developer's machine and fail where `CI` is set.
"""

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis


class RedisServer:
    """redis-server on a free port of 127.0.0.1.

    Args:
        durable: append-only file with a sync for each write, as the event log wants it; else nothing on the disk.
    """

    def __init__(self, folder: Path, *, durable: bool = False) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._folder = folder
        keeping = ["--appendonly", "yes", "--appendfsync", "always"] if durable else ["--appendonly", "no"]
        self._command = ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", *keeping]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """On what an earlier start has left in the folder."""
        self._process = subprocess.Popen(self._command, cwd=self._folder, stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + 10
        with redis.Redis.from_url(self.url) as client:
            while True:
                try:
                    client.ping()
                    return
                except redis.exceptions.RedisError:
                    assert time.monotonic() < deadline, "redis-server did not come up"
                    assert self._process.poll() is None, "redis-server ended"

    def freeze(self) -> None:
        """It takes connections and answers nothing, until it is stopped."""
        assert self._process
        self._process.send_signal(signal.SIGSTOP)

    def stop(self) -> None:
        """By kill -9."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


def started(folder: Path, *, durable: bool) -> RedisServer:
    """One of the test's own, that it may kill. The caller stops it."""
    if shutil.which("redis-server") is None:
        if os.environ.get("CI"):
            pytest.fail("redis-server is not on the PATH, and CI is set: apt-get install redis-server")
        pytest.skip("redis-server is not on the PATH: what needs Redis is NOT tested")
    server = RedisServer(folder, durable=durable)
    server.start()
    return server


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    server = started(tmp_path_factory.mktemp("redis"), durable=False)
    yield server
    server.stop()


@pytest.fixture
def redis_url(redis_server: RedisServer) -> str:
    """An empty database."""
    return _empty(redis_server)


@pytest.fixture(scope="session")
def durable_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    server = started(tmp_path_factory.mktemp("redis-durable"), durable=True)
    yield server
    server.stop()


@pytest.fixture
def durable_url(durable_server: RedisServer) -> str:
    """An empty database of a Redis that an event log may lie in."""
    return _empty(durable_server)


def _empty(server: RedisServer) -> str:
    with redis.Redis.from_url(server.url) as client:
        client.flushall()
    return server.url
