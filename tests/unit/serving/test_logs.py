"""What reaches the log: the request's id, and nothing that its user sent, on the paths where something fails too."""

import asyncio
import io
import json
import logging
import re

import pytest

from bentos.recommender import logs
from bentos.recommender.entry import Entry
from bentos.recommender.metrics import Metrics
from contracts.errors import Overloaded
from contracts.settings import Settings

TOKEN = "a-token-of-the-tests"
USER, CITY, ITEM = "u-8817-of-the-tests", "Zwickau", 'i\'9 "quoted"'
BODY = json.dumps({"user_id": USER, "context": {"city": CITY, "os": "at"}, "exclude": [ITEM]}).encode()


class Runtime:
    phase = "serving"
    bento = "streamrec:test"
    settings = Settings(token=TOKEN)

    def __init__(self, raised):
        self.metrics = Metrics()
        self.raised = raised

    def admit(self, began, front, within_ms):
        return "full"

    def left(self, aim):
        pass

    async def recommend(self, *_):
        raise self.raised


@pytest.fixture(params=["text", "json"])
def form(request):
    return request.param


@pytest.fixture
def lines(form):
    """What is logged meanwhile."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logs.FORMATS[form]([TOKEN]))
    root = logging.getLogger()
    before = root.handlers[:], root.level
    root.handlers[:] = [handler]
    root.setLevel(logging.INFO)
    yield stream
    root.handlers[:], root.level = before


def call(raised, body=BODY):
    sent = []

    async def receive():
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": "/v1/recommendations", "headers": []}
    scope["headers"] = [(b"authorization", b"Bearer " + TOKEN.encode())]
    asyncio.run(Entry(None, lambda: Runtime(raised))(scope, receive, send))
    return dict(sent[0]["headers"])[b"x-request-id"].decode()


@pytest.mark.parametrize(
    "raised",
    [
        KeyError(USER),
        ValueError(f"{CITY} is not in {{'u': {USER!r}}}, nor {ITEM!r} and {ITEM}"),
        RuntimeError(f"Authorization: Bearer {TOKEN}"),
        Overloaded(f"nothing for {USER}"),
    ],
)
def test_no_personal_value_and_no_token_reaches_the_log_of_a_failure(raised, lines, form):
    request_id = call(raised)
    text = lines.getvalue()
    assert request_id in text
    for secret in (USER, CITY, ITEM, repr(ITEM)[1:-1], TOKEN):
        assert secret not in text
    assert "recommend" in text if not isinstance(raised, Overloaded) else "nothing for" in text
    if form == "json":
        (document,) = [json.loads(line) for line in text.splitlines()]
        assert document["request_id"] == request_id
        assert document["level"] == "error"
        assert "what(" not in document["message"]


def test_a_body_that_breaks_the_schema_is_not_logged(lines):
    call(None, json.dumps({"user_id": USER, "k": CITY}).encode())
    assert lines.getvalue() == ""


def test_values_are_hidden_as_words_and_do_not_eat_into_others(lines):
    logs.about.set(about := logs.About("r1"))
    about.body = b'{"context": ["at", "", "DE", 3]}'
    logging.getLogger("x").warning("what DE sent at DEADLINE")
    logs.about.set(None)
    logging.getLogger("x").warning("what DE sent")
    first, second = lines.getvalue().splitlines()
    assert f"what {logs.HIDDEN} sent {logs.HIDDEN} DEADLINE" in first
    assert "r1" in first
    assert "what DE sent" in second
    assert "r1" not in second


def test_a_json_line_has_the_fields_it_was_given():
    fields = {"event": "rung_change", "level": "mine", "n": 3}
    record = logging.makeLogRecord({"msg": "rung %s", "args": ("lower",), "levelname": "WARNING", "fields": fields})
    document = json.loads(logs.JsonLines().format(record))
    assert (document["message"], document["event"], document["n"]) == ("rung lower", "rung_change", 3)
    assert document["level"] == "warning"
    assert re.match(r"\d{4}-\d\d-\d\dT[\d:.]+\+00:00", document["time"])
