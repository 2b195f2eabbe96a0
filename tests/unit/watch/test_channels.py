"""Channels: signed, tried again, counted once; and the schema names an owner and a runbook for each alert."""

import hashlib
import hmac
import json
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from contracts.errors import Refused, Unreachable, UsageError
from monitoring.alerts.channels.base import Message
from monitoring.alerts.channels.log import FILE, LogChannel, read_alerts
from monitoring.alerts.channels.webhook import WebhookChannel, verify
from monitoring.signals import Signal
from monitoring.watch.schema import read_schema, schema_of, schema_path
from monitoring.watch.watch import Watch
from tests.unit.watch.world import World, signal

ROOT = Path(__file__).resolve().parents[3]
MESSAGE = Message(
    "a:raised:1", "raised", "a", "m", "quality", "ticket", "ranking", "docs/runbooks/drift.md", 1, 0, "x", []
)


NO_HTTP = 0


class Receiver(HTTPServer):
    """Answers with `codes`, then 200; keeps what came."""

    codes: list[int]
    got: list[tuple[dict[str, str], bytes]]


class Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        server = self.server
        assert isinstance(server, Receiver)
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        server.got.append(({k.lower(): v for k, v in self.headers.items()}, body))
        code = server.codes.pop(0) if server.codes else 200
        if code == NO_HTTP:
            self.wfile.write(b"220 mail.example.org ESMTP\r\n")
            return
        self.send_response(code)
        self.send_header("location", f"http://127.0.0.1:{server.server_port}/moved")
        self.end_headers()

    def do_GET(self) -> None:  # what a redirect would be followed with
        self.do_POST()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    server = Receiver(("127.0.0.1", 0), Handler)
    server.codes, server.got = [], []
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


def channel(receiver: Receiver) -> tuple[WebhookChannel, list[float]]:
    slept: list[float] = []
    url = f"http://127.0.0.1:{receiver.server_port}/hook"
    return WebhookChannel(url, "secret", clock_s=lambda: 1000.0, sleep=slept.append, send_s=60), slept


def test_a_post_is_signed_over_its_time_and_body(receiver: Receiver) -> None:
    channel(receiver)[0].send(MESSAGE)
    headers, body = receiver.got[0]
    assert headers["x-streamrec-key"] == MESSAGE.key
    expected = hmac.new(b"secret", b"1000." + body, hashlib.sha256).hexdigest()  # RFC 2104, by the library
    assert headers["x-streamrec-signature"] == f"sha256={expected}"
    assert json.loads(body)["runbook"] == "docs/runbooks/drift.md"
    signed = headers["x-streamrec-signature"]
    assert verify("secret", "1000", body, signed, 1200)
    assert not verify("other", "1000", body, signed, 1200)
    assert not verify("secret", "1000", body + b" ", signed, 1200)
    assert not verify("secret", "1000", body, signed, 1301)
    assert not verify("secret", "soon", body, signed, 1000)


def test_what_may_pass_is_tried_again_with_growing_pauses_and_the_same_key(receiver: Receiver) -> None:
    receiver.codes = [503, 429]
    hook, slept = channel(receiver)
    hook.send(MESSAGE)
    assert {headers["x-streamrec-key"] for headers, _ in receiver.got} == {MESSAGE.key}
    assert len(receiver.got) == 3
    assert len(slept) == 2


def test_what_stays_away_is_unreachable_and_a_plain_no_is_not_tried_again(receiver: Receiver) -> None:
    receiver.codes = [500, 500, 500, 403]
    hook, _ = channel(receiver)
    with pytest.raises(Unreachable, match="500"):
        hook.send(MESSAGE)
    with pytest.raises(Refused, match="403"):
        hook.send(MESSAGE)
    assert len(receiver.got) == 4
    closed = WebhookChannel("http://127.0.0.1:9/", "secret", sleep=lambda _: None, send_s=60)
    with pytest.raises(Unreachable):
        closed.send(MESSAGE)


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed_and_counts_as_not_told(receiver: Receiver, code: int) -> None:
    receiver.codes = [code]
    with pytest.raises(Refused, match=str(code)):
        channel(receiver)[0].send(MESSAGE)
    assert len(receiver.got) == 1


def test_what_is_no_http_is_unreachable(receiver: Receiver) -> None:
    receiver.codes = [NO_HTTP] * 3
    with pytest.raises(Unreachable, match="BadStatusLine"):
        channel(receiver)[0].send(MESSAGE)


def test_one_that_never_answers_is_left_alone_in_time_and_asked_nothing_beside() -> None:
    with socket.create_server(("127.0.0.1", 0)) as hole:  # it takes connections, and nobody reads them
        url = f"http://127.0.0.1:{hole.getsockname()[1]}/"
        hook = WebhookChannel(url, "secret", sleep=lambda _: None, send_s=0.01)
        with pytest.raises(Unreachable, match="did not answer within"):
            hook.send(MESSAGE)
        with pytest.raises(Unreachable, match="last send"):
            hook.send(MESSAGE)


def test_a_receiver_that_refuses_one_message_gets_the_next(receiver: Receiver) -> None:
    """The watch, its outbox and the real channel: 400 to the first try, 200 from then on."""
    receiver.codes = [400]
    both = ("level.streaming_features", "drift.severity")
    world = World(lambda job: [signal(n, "breach", job.at_us) for n in both] if job.check == "levels" else [])
    hook, _ = channel(receiver)
    world.watch = Watch(
        world.documents,
        lambda: world.live,
        lambda _: world.schema,
        world.runner,
        [hook],
        clock_us=lambda: world.now_us,
        holder="one",
    )
    world.minutes(15)
    texts = [json.loads(body)["text"] for _, body in receiver.got]
    assert ["streaming" in text for text in texts] == [True, True, False]
    assert receiver.got[0][0]["x-streamrec-key"] == receiver.got[1][0]["x-streamrec-key"]


def test_the_log_has_each_key_once_also_after_a_line_that_was_cut_off(tmp_path: Path) -> None:
    log = LogChannel(tmp_path)
    log.send(MESSAGE)
    log.send(MESSAGE)
    with (tmp_path / FILE).open("ab") as file:
        file.write(b'{"key": "b:rai')
    log.send(MESSAGE)
    other = Message(**{**{name: getattr(MESSAGE, name) for name in Message.__slots__}, "key": "b:raised:2"})
    log.send(other)
    assert [row["key"] for row in read_alerts(tmp_path)] == ["a:raised:1", "b:raised:2"]


SHIPPED = read_schema(schema_path(Path("no-home")))


@pytest.mark.parametrize("row", SHIPPED.signals, ids=lambda row: row.signal)
def test_each_alert_has_an_owner_and_a_runbook_that_is_there(row) -> None:
    assert row.owner
    text = (ROOT / row.runbook).read_text()
    assert row.signal.rstrip("*.").partition("*")[0].rstrip(".") in text or row.signal.partition(".")[0] in text
    assert Path(row.runbook).name in (ROOT / "docs" / "runbooks" / "README.md").read_text()


@pytest.mark.parametrize(
    "name", ["drift.severity", "drift.concept.ctr", "skew.rows.price", "slice.error", "level.latency", "run.training"]
)
def test_every_signal_that_a_check_makes_has_its_row(name: str) -> None:
    row = SHIPPED.row(name)
    assert row is not None
    assert Signal(name, "", "ok", 0).family in row.signal


def test_a_schema_of_the_home_goes_before_and_unknown_keys_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "monitoring"
    folder.mkdir()
    text = schema_path(tmp_path).read_text()
    (folder / "streamrec.toml").write_text(text.replace('name = "default"', 'name = "mine"'))
    assert schema_of(tmp_path, "streamrec:abc").name == "mine"
    assert schema_of(tmp_path, "other:abc").name == "default"
    (folder / "streamrec.toml").write_text(text.replace('owner = "serving"', 'ownr = "serving"', 1))
    with pytest.raises(UsageError, match="ownr"):
        schema_of(tmp_path, "streamrec:abc")
