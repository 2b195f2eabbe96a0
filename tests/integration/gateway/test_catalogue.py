"""The live catalogue at the gateway: it hands changes on, and its own last resort heeds them in every process."""

import os
import signal

import httpx

from bentos.telemetry.rendezvous import lock_path
from tests.integration.gateway.conftest import TOKEN
from tests.serving_processes import wait_until

MAY = {"authorization": f"Bearer {TOKEN}"}


def test_what_is_taken_down_leaves_the_last_resort_of_every_gateway_process_and_stays_out_of_it(world):
    champion = world.stub("alpha")
    world.write()
    world.start(processes=2, deadline_ms=500)
    wait_until(lambda: all(d["last_resort"]["popularity"] for d in world.all_ready().values()), 20, "popularity lists")
    assert world.recommend("u1").json()["items"][0]["item_id"] == "a0"  # which one of the gateways remembers
    champion.kill()
    last = lambda user: {i["item_id"] for n in range(8) for i in fresh(world, user)}  # noqa: E731
    assert "p0" in last("u2")

    assert world.http.post("/v1/items/p0/flag").status_code == 401
    answer = world.http.post("/v1/items/p0/flag", headers=MAY)
    assert (answer.status_code, answer.json()) == (200, {"version": 1, "changed": ["p0"], "unchanged": 0})
    assert world.http.delete("/v1/items/a0", headers=MAY).json()["version"] == 2
    wait_until(lambda: not {"p0", "a0"} & (last("u2") | last("u1")), 20, "both gone from both processes")
    assert {d["components"]["catalogue"]["state"] for d in world.all_ready().values()} == {"healthy"}

    for gateway in world.gateways:  # a new process knows it from the start, though its list is an old one
        gateway.kill()
        gateway.wait()
    os.kill(int(lock_path(world.home).read_text()), signal.SIGKILL)
    world.gateways.clear()
    world.start(processes=1, deadline_ms=500)
    shown = last("u2")
    assert "p1" in shown
    assert "p0" not in shown
    put = [{"item_id": "p0", "category": "c", "is_flagged": False}]
    assert world.http.put("/v1/items", json=put, headers=MAY).json()["changed"] == ["p0"]
    wait_until(lambda: "p0" in last("u2"), 20, "shown again")


def fresh(world, user):
    """Over a new connection: any process answers."""
    answer = httpx.post(f"{world.url}/v1/recommendations", json={"user_id": user, "k": 5}, timeout=10)
    assert answer.status_code == 200, answer.text
    return answer.json()["items"]
