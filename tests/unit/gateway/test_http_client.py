"""The client against servers that misbehave, over a real socket."""

import asyncio
import contextlib

import pytest

from bentos.gateway.http_client import MAX_ANSWER_BYTES, Client, Dead, Garbled

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


@contextlib.asynccontextmanager
async def server(tmp_path, *answers, tcp=False):
    """Answers request n with answers[n]; `None` hangs, b"" closes. Yields (url, seen)."""
    seen = []
    writers = []

    async def serve(reader, writer):
        writers.append(writer)
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
                body = await reader.readexactly(length)
                answer = answers[min(len(seen), len(answers) - 1)]
                seen.append((len(writers), head, body))
                if answer is None:
                    continue
                for part in answer if isinstance(answer, list) else [answer]:
                    writer.write(part)
                    await writer.drain()
                    await asyncio.sleep(0)
                if answer == b"" or b"connection: close" in answer:
                    break
        writer.close()

    if tcp:
        running = await asyncio.start_server(serve, "127.0.0.1", 0)
        url = f"http://127.0.0.1:{running.sockets[0].getsockname()[1]}"
    else:
        running = await asyncio.start_unix_server(serve, tmp_path / "s")
        url = f"unix:{tmp_path / 's'}"
    try:
        yield url, seen
    finally:
        running.close()
        for writer in writers:
            writer.close()


def ask(url_client, body=b"{}", **headers):
    return url_client.request("POST", "/x", headers, body)


@pytest.mark.parametrize("tcp", [True, False])
def test_one_connection_serves_one_request_after_the_other(tmp_path, tcp):
    async def main():
        async with server(tmp_path, OK, tcp=tcp) as (url, seen):
            client = Client(url)
            for n in range(3):
                assert (await ask(client, b"x" * n, a="1")).body == b"ok"
            client.close()
            assert [number for number, _, _ in seen] == [1, 1, 1]
            assert [body for _, _, body in seen] == [b"", b"x", b"xx"]
            assert b"POST /x HTTP/1.1\r\n" in seen[0][1]
            assert b"\r\na: 1\r\n" in seen[0][1]

    asyncio.run(main())


def test_an_answer_in_pieces_and_in_chunks_is_put_together(tmp_path):
    pieces = [
        bytes([b]) for b in b"HTTP/1.1 503 No\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
    ]

    async def main():
        async with server(tmp_path, pieces, OK) as (url, _):
            client = Client(url)
            reply = await ask(client)
            assert (reply.status, reply.body) == (503, b"abcde")
            assert (await ask(client)).body == b"ok"
            client.close()

    asyncio.run(main())


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (b"", Dead),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\nconnection: close\r\n\r\nhalf", Dead),
        (b"SSH-2.0-what\r\n\r\n", Garbled),
        (
            b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % (MAX_ANSWER_BYTES + 1) + b"x" * (MAX_ANSWER_BYTES + 1),
            Garbled,
        ),
    ],
)
def test_what_is_no_whole_answer_is_an_error_and_the_next_request_has_a_new_connection(tmp_path, answer, error):
    async def main():
        async with server(tmp_path, answer, OK) as (url, seen):
            client = Client(url)
            with pytest.raises(error):
                await ask(client)
            assert (await ask(client)).body == b"ok"
            assert seen[1][0] == 2
            client.close()

    asyncio.run(main())


def test_nobody_there_is_refused(tmp_path):
    async def main():
        with pytest.raises(Dead) as error:
            await ask(Client(f"unix:{tmp_path}/none"))
        assert error.value.refused

    asyncio.run(main())


def test_the_answer_to_one_that_gave_up_meets_nobody_else(tmp_path):
    async def main():
        async with server(tmp_path, None, OK) as (url, seen):
            client = Client(url)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await ask(client)
            assert (await ask(client)).body == b"ok"
            assert [number for number, _, _ in seen] == [1, 2]
            client.close()

    asyncio.run(main())


def test_a_connection_that_the_other_side_closes_is_not_used_again(tmp_path):
    closing = b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok"

    async def main():
        async with server(tmp_path, closing, OK) as (url, seen):
            client = Client(url)
            for _ in range(2):
                assert (await ask(client)).body == b"ok"
            assert [number for number, _, _ in seen] == [1, 2]
            client.close()

    asyncio.run(main())


def test_more_than_was_asked_for_ends_the_connection(tmp_path):
    async def main():
        async with server(tmp_path, OK + OK, OK) as (url, _):
            client = Client(url)
            assert (await ask(client)).body == b"ok"
            await asyncio.sleep(0)
            assert (await ask(client)).body == b"ok"
            client.close()

    asyncio.run(main())
