"""What clients may do to a worker, on purpose or not: bounded, and everyone else is served."""

import contextlib
import gzip
import json
import os
import resource
import socket
import time

import httpx
import psutil
import pytest

from tests.serving_processes import free_port, running, wait_until

BODY = b'{"user_id": "u1", "k": 3}'
ASK = b"POST /v1/recommendations HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n%s" % (len(BODY), BODY)
MB = 1 << 20


@contextlib.contextmanager
def worker(world, home, *arguments, **env):
    port = free_port()
    command = ["-m", "bentos.recommender.worker", "--bundles", str(world), "--port", str(port), "--drain-s", "0"]
    with running([*command, *arguments], home, world, url=f"http://127.0.0.1:{port}", **env) as served:
        yield served


@pytest.fixture(scope="module")
def served(world, tmp_path_factory):
    with worker(world, tmp_path_factory.mktemp("home"), "--headers-s", "2", "--body-s", "2") as served:
        yield served


@pytest.fixture
def connect(served):
    with contextlib.ExitStack() as stack:
        yield lambda: stack.enter_context(dial(served))


def dial(served):
    return socket.create_connection(("127.0.0.1", int(served.url.rpartition(":")[2])), timeout=30)


def rest_of(raw):
    """All that comes until the other side closes."""
    chunks = []
    with contextlib.suppress(ConnectionResetError):
        while chunk := raw.recv(65_536):
            chunks.append(chunk)
    return b"".join(chunks)


def problem(answer, status):
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d " % status), answer[:200]
    assert b"application/problem+json" in head
    assert b"connection: close" in head
    assert json.loads(body)["status"] == status
    return json.loads(body)


def memory(served):
    return psutil.Process(served.process.pid).memory_info().rss


def metric(served, name):
    return float(httpx.get(f"{served.url}/metrics").text.partition(f"\n{name} ")[2].split()[0])


def closed(served, reason):
    return metric(served, f'streamrec_connections_closed_total{{reason="{reason}"}}')


def send_until_closed(raw, chunk, most):
    """Bytes sent, at most `most`."""
    sent = 0
    with contextlib.suppress(ConnectionError):
        while sent < most:
            raw.sendall(chunk)
            sent += len(chunk)
    return sent


def test_a_header_that_is_dripped_on_a_new_or_a_kept_connection_ends_the_connection(served, connect):
    new, kept, blank = connect(), connect(), connect()
    kept.sendall(ASK)
    assert kept.recv(65_536).startswith(b"HTTP/1.1 200")
    new.sendall(b"POST /v1/recomm")
    kept.sendall(b"POST /v1/recommendations HTTP/1.1\r\nhost")
    began = time.monotonic()
    for raw in (new, kept, blank):
        raw.settimeout(0.1)
    ended = set()
    while len(ended) < 3 and time.monotonic() - began < 20:  # never quiet for long, never done
        for name, raw, drop in (("new", new, b"x"), ("kept", kept, b"x"), ("blank", blank, b"\r\n")):
            try:
                raw.sendall(drop)
                if raw.recv(100) == b"":
                    ended.add(name)
            except TimeoutError:
                continue
            except ConnectionError:
                ended.add(name)
    assert ended == {"new", "kept", "blank"}


def test_a_body_that_is_dripped_is_a_408_and_takes_no_place_among_the_requests_in_flight(served, connect):
    slow = [connect() for _ in range(600)]  # 512 requests may be in flight
    for raw in slow:
        raw.sendall(b"POST /v1/recommendations HTTP/1.1\r\nhost: x\r\ncontent-length: 25\r\n\r\n{")
    assert served.recommend(user_id="u1")["items"]
    assert "streamrec_in_flight 1.0" in httpx.get(f"{served.url}/metrics").text
    problem(rest_of(slow[0]), 408)
    problem(rest_of(slow[-1]), 408)


@pytest.mark.parametrize(
    "head",
    [
        b"GET /livez?" + b"x" * 20_000 + b" HTTP/1.1\r\nhost: x\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nhost: x\r\nx: " + b"y" * 20_000 + b"\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nhost: x\r\n" + b"x: y\r\n" * 200 + b"\r\n",
    ],
    ids=["line", "field", "fields"],
)
def test_an_oversized_header_is_a_431(served, connect, head):
    raw = connect()
    raw.sendall(head)
    problem(rest_of(raw), 431)


def test_a_header_without_end_and_a_trailer_without_end_are_cut_off(served, connect):
    before = memory(served)
    raw = connect()
    raw.sendall(b"GET /livez HTTP/1.1\r\nhost: x\r\nx: ")
    send_until_closed(raw, b"y" * 65_536, 64 * MB)
    assert rest_of(raw)[:12] in (b"HTTP/1.1 431", b"")  # a reset can overtake the answer: too much was still coming
    raw = connect()
    raw.sendall(b"POST /v1/recommendations HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n0\r\n")
    send_until_closed(raw, b"x: y\r\n" * 1_000, 64 * MB)
    assert memory(served) - before < 20 * MB


@pytest.mark.parametrize("chunk", [b"10000\r\n" + b"x" * 65_536 + b"\r\n", b"1;" + b"e" * 65_536 + b"\r\nx\r\n"])
def test_a_chunked_body_without_end_is_cut_off_and_held_nowhere(served, connect, chunk):
    before = memory(served)
    raw = connect()
    raw.sendall(b"POST /v1/recommendations HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n")
    assert send_until_closed(raw, chunk, 200 * MB) < 100 * MB
    assert rest_of(raw)[:12] in (b"HTTP/1.1 413", b"")
    assert memory(served) - before < 20 * MB
    assert served.recommend(user_id="u1")["items"]


def test_large_bodies_that_never_end_share_a_bounded_room_and_small_ones_still_come_in(served, connect):
    before = memory(served)
    head = b"POST /v1/recommendations HTTP/1.1\r\nhost: x\r\ncontent-length: 1048576\r\n\r\n"
    refused = False
    for _ in range(120):  # of 64 MB in all, there is room for 64
        raw = connect()
        raw.sendall(head)
        with contextlib.suppress(ConnectionError):
            raw.sendall(b" " * (MB - 1))
        refused = refused or closed(served, "bounds") > 0
    assert refused
    assert memory(served) - before < 150 * MB
    assert served.recommend(user_id="u1")["items"]


def test_a_compressed_body_is_a_415_and_is_never_unpacked(served):
    bomb = gzip.compress(b" " * 200 * MB, 1)
    before = memory(served)
    for path, coding in (("/v1/recommendations", "gzip"), ("/v1/events", "gzip, identity"), ("/v1/events", "br")):
        answer = httpx.post(f"{served.url}{path}", content=bomb, headers={"content-encoding": coding}, timeout=30)
        assert answer.status_code == 415
        assert answer.headers["accept-encoding"] == "identity"
        assert answer.json()["status"] == 415
    assert memory(served) - before < 100 * MB
    plain = httpx.post(f"{served.url}/v1/recommendations", content=BODY, headers={"content-encoding": "identity"})
    assert plain.status_code == 200


@pytest.mark.parametrize(
    "junk",
    [
        b"GET /livez\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET /livez HTTP/9.9\r\nhost: x\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"POST /livez HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST /v1/recommendations HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        b"POST /v1/recommendations HTTP/1.1\r\nhost: x\r\ntransfer-encoding: xchunked\r\n\r\n0\r\n\r\n",
        b"POST /v1/recommendations HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\n{    }",
        b"POST /v1/recommendations HTTP/1.1\r\nhost: x\r\ncontent-length: +25\r\n\r\n" + BODY,
        b"POST /v1/recommendations HTTP/1.1\r\nhost: x\r\ncontent-length : 25\r\n\r\n" + BODY,
        b"POST /v1/recommendations HTTP/1.1\r\nhost: x\r\nfolded: a\r\n b: c\r\ncontent-length: 25\r\n\r\n" + BODY,
        b"GET /livez HTTP/1.1\nhost: x\n\n",
        b"GET /livez HTTP/1.1\r\nhost: x\r\nnul: a\x00b\r\n\r\n",
    ],
    ids=[
        *("http-0.9", "tls", "http-9.9", "http-2", "length-and-chunked", "chunked-not-last", "not-chunked"),
        *("two-lengths", "signed-length", "space-before-colon", "folded", "bare-line-feeds", "nul"),
    ],
)
def test_what_two_parsers_could_read_in_two_ways_is_a_400_and_the_end_of_the_connection(served, connect, junk):
    raw = connect()
    raw.sendall(junk + ASK)  # a smuggled request must not be answered
    answer = rest_of(raw)
    problem(answer, 400)
    assert answer.count(b"HTTP/1.1 ") == 1


def test_nothing_after_an_upgrade_is_taken_for_a_request(served, connect):
    raw = connect()
    raw.sendall(b"GET /livez HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n" + ASK)
    answer = rest_of(raw)
    assert answer.startswith(b"HTTP/1.1 200")
    assert b"connection: close" in answer
    assert answer.count(b"HTTP/1.1 ") == 1


def test_pipelined_requests_are_answered_in_order_and_a_flood_of_them_is_cut_off(served, connect):
    raw = connect()
    raw.sendall(ASK * 16)
    answers = b""
    while answers.count(b"HTTP/1.1 200") < 16:
        answers += raw.recv(65_536)
    before = memory(served)
    floods = [connect() for _ in range(50)]
    for flood in floods:
        send_until_closed(flood, b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n" * 5_000, 1)
    assert served.recommend(user_id="u1")["items"]
    assert memory(served) - before < 50 * MB


def test_a_client_that_asks_on_and_never_reads_is_let_go(served):
    with socket.socket() as raw:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        raw.connect(("127.0.0.1", int(served.url.rpartition(":")[2])))
        raw.settimeout(0.2)
        before = closed(served, "slow")
        with contextlib.suppress(TimeoutError, ConnectionError):
            while True:
                raw.sendall(b"GET /v1/openapi.json HTTP/1.1\r\nhost: x\r\nx: " + b"y" * 8_000 + b"\r\n\r\n")
        wait_until(lambda: closed(served, "slow") > before, 30, "the end of a connection that is not read from")


def test_an_expected_100_is_given_before_the_body_and_not_for_one_that_is_too_large(served, connect):
    raw = connect()
    head = b"POST /v1/recommendations HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: %d\r\n\r\n"
    raw.sendall(head % len(BODY))
    assert raw.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
    raw.sendall(BODY)
    assert raw.recv(65_536).startswith(b"HTTP/1.1 200")
    raw = connect()
    raw.sendall(head % (2 * MB))
    problem(rest_of(raw), 413)


MANY = 10_000


def test_ten_thousand_connections_that_say_nothing_cost_little_and_others_are_served(world, tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < MANY + 1_000 and not os.environ.get("CI"):
        pytest.skip(f"a process may open {hard} files here: ulimit -Hn")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        with worker(world, tmp_path / "home", "--headers-s", "60") as served, contextlib.ExitStack() as stack:
            before = memory(served)
            for _ in range(MANY):
                stack.enter_context(dial(served))
            # As many as it takes (`max_connections`), those included that ask for the metrics.
            wait_until(lambda: metric(served, "streamrec_connections") >= MANY - 10, 60, "all of them accepted")
            assert served.recommend(user_id="u1")["items"]
            assert served.recommend(user_id="u2")["items"]
            assert memory(served) - before < 100 * MB
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_without_room_the_oldest_silent_connection_goes_and_those_that_are_used_stay(world, tmp_path):
    with (
        worker(world, tmp_path / "home", STREAMREC_MAX_CONNECTIONS="50") as served,
        contextlib.ExitStack() as stack,
        served.http as client,
    ):
        assert client.get("/livez").status_code == 200
        silent = [stack.enter_context(dial(served)) for _ in range(200)]
        wait_until(lambda: closed(served, "evicted") >= 150, why="150 evictions")
        assert silent[0].recv(1) == b""
        silent[-1].sendall(ASK)
        assert silent[-1].recv(100).startswith(b"HTTP/1.1 200")
        assert client.get("/livez", headers={"x": "the same connection"}).status_code == 200
