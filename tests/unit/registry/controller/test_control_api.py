"""The controller's HTTP interface: who may, what is asked, and how it says no."""

import asyncio
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette

from contracts.settings import Settings
from registry.access import create_token, revoke_token
from registry.control.memory import MemoryStore
from registry.control.store import Actor, Role
from registry.control_api import MAX_BODY, control_app
from tests.unit.registry.controller.test_commands import NOW_US, POLICY, bento

ALICE = Actor("local:alice", "admin")


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def tokens(store: MemoryStore) -> dict[str, str]:
    """By role."""
    roles: tuple[Role, ...] = ("admin", "releaser", "viewer")
    return {role: create_token(store, ALICE, f"the {role}", role, NOW_US) for role in roles}


@pytest.fixture
def app(tmp_path: Path, store: MemoryStore) -> Starlette:
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies" / "free.toml").write_text(POLICY.format(name="free", evidence="any"))
    bento(tmp_path, "a")
    return control_app(store, Settings(home=tmp_path), clock_us=lambda: NOW_US, ready=lambda: {"status": "ready"})


class Client:
    def __init__(self, app: Starlette, tokens: dict[str, str]) -> None:
        self._app, self.tokens = app, tokens

    def get(self, path: str, **more: Any) -> httpx.Response:
        return asyncio.run(self._ask("GET", path, more))

    def post(self, path: str, **more: Any) -> httpx.Response:
        return asyncio.run(self._ask("POST", path, more))

    async def _ask(self, method: str, path: str, more: dict[str, Any]) -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(self._app), base_url="http://test") as client:
            return await client.request(method, path, **more)


@pytest.fixture
def client(app: Starlette, tokens: dict[str, str]) -> Client:
    return Client(app, tokens)


def bearer(client: Client, who: str) -> dict[str, str]:
    return {"authorization": f"Bearer {client.tokens.get(who, who)}"}


def post(client: Client, operation: str, body: dict[str, Any] | None = None, who: str = "releaser") -> httpx.Response:
    return client.post(f"/v1/releases/{operation}", json=body or {}, headers=bearer(client, who))


def test_a_releaser_starts_a_release_and_a_viewer_sees_it(client: Client) -> None:
    answer = post(client, "start", {"tag": "streamrec:a", "policy": "free"})
    assert answer.status_code == 200, answer.text
    assert answer.json()["candidate"] == "streamrec:a"
    seen = client.get("/v1/releases", headers=bearer(client, "viewer")).json()
    assert seen["releases"][0]["candidate"] == "streamrec:a"
    history = client.get("/v1/releases/history?limit=5", headers=bearer(client, "viewer")).json()
    assert history["entries"][-1]["action"] == "release.start"


def test_no_token_is_401_and_no_right_is_403_as_problem_documents(client: Client) -> None:
    for answer in (client.get("/v1/releases"), client.post("/v1/releases/pause")):
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"] == "Bearer"
        assert answer.headers["content-type"] == "application/problem+json"
        assert {"type", "title", "status", "detail", "request_id"} <= set(answer.json())
    assert post(client, "pause", who="viewer").status_code == 403
    assert post(client, "pause", who="nobody").status_code == 403
    assert post(client, "promote", {"force": True}, who="releaser").status_code == 403


def test_while_no_token_exists_nobody_is_admin_over_http(app: Starlette, store: MemoryStore) -> None:
    """At the command line the right to read the database file is the boundary; a port shows none."""
    client = Client(app, {})
    assert post(client, "pause", who="anything").status_code == 403
    assert client.get("/v1/releases", headers=bearer(client, "anything")).status_code == 403
    token = create_token(store, ALICE, "first", "admin", NOW_US)
    assert client.get("/v1/releases", headers=bearer(client, token)).status_code == 200
    revoke_token(store, ALICE, "first", NOW_US)
    assert client.get("/v1/releases", headers=bearer(client, token)).status_code == 403


@pytest.mark.parametrize(
    ("operation", "body", "status"),
    [
        ("rollback", {}, 409),  # nothing to go back to
        ("start", {"tag": "streamrec:nowhere", "policy": "free"}, 404),
        ("start", {}, 400),
        ("start", {"tag": "streamrec:a", "rules": {"version": "1"}}, 400),
        ("start", {"tag": "streamrec:a", "policy": "free", "surprise": 1}, 400),
        ("canary", {"weight": 101}, 400),
        ("explode", {}, 404),
    ],
)
def test_what_is_refused_says_why(client: Client, operation: str, body: dict[str, Any], status: int) -> None:
    answer = post(client, operation, body, who="admin")
    assert answer.status_code == status, answer.text
    assert answer.json()["detail"]


def test_a_body_that_is_no_json_or_too_large_is_refused(client: Client) -> None:
    headers = bearer(client, "admin")
    assert client.post("/v1/releases/start", content=b"{", headers=headers).status_code == 400
    large = b'{"reason": "' + b"x" * MAX_BODY + b'"}'
    assert client.post("/v1/releases/pause", content=large, headers=headers).status_code == 413
    assert client.get("/v1/releases/history?limit=0", headers=headers).status_code == 400


def test_health_needs_no_token(client: Client) -> None:
    assert client.get("/livez").status_code == 200
    assert client.get("/readyz").json() == {"status": "ready"}
