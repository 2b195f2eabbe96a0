"""The controller's HTTP interface: who may, what is asked, and how it says no."""

import asyncio
from pathlib import Path
from typing import Any

import httpx
import pytest
from registry.access import Forbidden
from registry.control.memory import MemoryStore
from starlette.applications import Starlette

from contracts.settings import Settings
from registry.control.store import Actor
from registry.control_api import MAX_BODY, control_app
from tests.unit.registry.controller.test_commands import NOW_US, POLICY, bento

ROLES = {"see": "viewer", "release": "releaser", "all": "admin"}
ORDER = ("viewer", "releaser", "admin")


def authorise(store: Any, token: str | None, role: str, *, action: str, subject: str, now_us: int) -> Actor:
    found = ROLES.get(token or "")
    if found is None or ORDER.index(found) < ORDER.index(role):
        raise Forbidden(f"a {role} may do that")
    return Actor(token or "", found)  # type: ignore[arg-type]


@pytest.fixture
def app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Starlette:
    for module in ("registry.control_api", "registry.releases.commands", "registry.retire"):
        monkeypatch.setattr(f"{module}.authorise", authorise)
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies" / "free.toml").write_text(POLICY.format(name="free", evidence="any"))
    bento(tmp_path, "a")
    return control_app(
        MemoryStore(), Settings(home=tmp_path), clock_us=lambda: NOW_US, ready=lambda: {"status": "ready"}
    )


class Client:
    def __init__(self, app: Starlette) -> None:
        self._app = app

    def get(self, path: str, **more: Any) -> httpx.Response:
        return asyncio.run(self._ask("GET", path, more))

    def post(self, path: str, **more: Any) -> httpx.Response:
        return asyncio.run(self._ask("POST", path, more))

    async def _ask(self, method: str, path: str, more: dict[str, Any]) -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(self._app), base_url="http://test") as client:
            return await client.request(method, path, **more)


@pytest.fixture
def client(app: Starlette) -> Client:
    return Client(app)


def post(
    client: Client,
    operation: str,
    body: dict[str, Any] | None = None,
    token: str = "release",  # noqa: S107 — a role
) -> httpx.Response:
    return client.post(f"/v1/releases/{operation}", json=body or {}, headers={"authorization": f"Bearer {token}"})


def test_a_releaser_starts_a_release_and_a_viewer_sees_it(client: Client) -> None:
    answer = post(client, "start", {"tag": "streamrec:a", "policy": "free"})
    assert answer.status_code == 200, answer.text
    assert answer.json()["candidate"] == "streamrec:a"
    seen = client.get("/v1/releases", headers={"authorization": "Bearer see"}).json()
    assert seen["releases"][0]["candidate"] == "streamrec:a"
    history = client.get("/v1/releases/history?limit=5", headers={"authorization": "Bearer see"}).json()
    assert history["entries"][-1]["action"] == "release.start"


def test_no_token_is_401_and_no_right_is_403_as_problem_documents(client: Client) -> None:
    for answer in (client.get("/v1/releases"), client.post("/v1/releases/pause")):
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"] == "Bearer"
        assert answer.headers["content-type"] == "application/problem+json"
        assert {"type", "title", "status", "detail", "request_id"} <= set(answer.json())
    assert post(client, "pause", token="see").status_code == 403
    assert post(client, "pause", token="nobody").status_code == 403
    assert post(client, "promote", {"force": True}, token="release").status_code == 403


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
    answer = post(client, operation, body, token="all")
    assert answer.status_code == status, answer.text
    assert answer.json()["detail"]


def test_a_body_that_is_no_json_or_too_large_is_refused(client: Client) -> None:
    headers = {"authorization": "Bearer all"}
    assert client.post("/v1/releases/start", content=b"{", headers=headers).status_code == 400
    large = b'{"reason": "' + b"x" * MAX_BODY + b'"}'
    assert client.post("/v1/releases/pause", content=large, headers=headers).status_code == 413
    assert client.get("/v1/releases/history?limit=0", headers=headers).status_code == 400


def test_health_needs_no_token(client: Client) -> None:
    assert client.get("/livez").status_code == 200
    assert client.get("/readyz").json() == {"status": "ready"}
