"""`streamrec simulate`, in process."""

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from cli.main import app
from cli.simulate import people_of
from monitoring.simulation.population import population, swapped
from training.data.world import World


def test_a_run_is_one_json_document() -> None:
    told = CliRunner().invoke(
        app, ["simulate", "--in-process", "--candidate", "failing-in-shadow", "--runs", "2", "--seed", "7", "--json"]
    )
    assert told.exit_code == 0, told.output
    document = json.loads(told.stdout)
    assert document["scenarios"]["failing-in-shadow"]["ends"] == {"rolled_back": 2}
    assert [o["seed"] for o in document["outcomes"]] == [7, 8]


def test_what_is_unknown_or_half_given_is_refused() -> None:
    for words, code in (
        (["--in-process", "--candidate", "nobody"], 4),
        (["--candidate", "nobody"], 4),
        (["--fault", "dying"], 2),
        (["--fault", "nothing", "--faulty", "unix:/nowhere"], 4),
        (["--in-process", "--policy", "no-such-policy"], 4),
        (["--url", "http://127.0.0.1:9", "--requests", "1"], 5),
        (["--drift", "device=radio:2"], 2),
        (["--drift", "device=web:many"], 2),
        (["--swap", "web"], 2),
        (["--world", "no-such-world"], 1),
        (["--world", "no-such-world", "--users", "5"], 2),
    ):
        assert CliRunner().invoke(app, ["simulate", *words]).exit_code == code, words


def test_the_users_of_a_world_click_what_they_are_known_to_like(tmp_path: Path) -> None:
    world = World.from_seed(1, users=40, items=60)
    world.save(tmp_path / "truth")
    people = people_of(tmp_path, None, 0.3, None, None, 0)
    assert people.ids == world.user_ids()
    assert people.context_of(7) == {
        "country": ("DE", "FR", "GB", "NL", "US")[world.user_country[7]],
        "device": ("android", "ios", "web")[world.user_device[7]],
    }
    items = [3, 50, 9]
    found = people.chances(7, [world.item_ids()[i] for i in items])
    looked_at = np.arange(1, 4) ** -0.7  # synth.py: clicked with likes × examination
    assert found == pytest.approx(world.affinity(np.array(7), np.array(items)) * looked_at, rel=1e-6)
    assert people.chances(7, ["of-another-catalogue"]) == pytest.approx([0.0])

    moved = people_of(tmp_path, None, 0.3, "device=web:2", "device=web", 0)
    assert moved.of("device", "web").sum() == 2 * people.of("device", "web").sum()
    slate = world.item_ids()[:10]
    others = [u for u in range(40) if not moved.of("device", "web")[u]]
    assert all(moved.chances(u, slate) == pytest.approx(people.chances(u, slate)) for u in others)
    before, after = ({tuple(p.chances(u, slate)) for u in range(40)} for p in (people, moved))
    assert before == after  # the tastes are the same, and some of them are other people's
    assert any(moved.chances(u, slate)[0] != people.chances(u, slate)[0] for u in set(range(40)) - set(others))


def test_tastes_that_do_not_hang_on_the_item_are_swapped_too() -> None:
    people = population(200, 3)
    moved = swapped(people, "country", "DE", 1)
    germans = people.of("country", "DE")
    assert sorted(moved.taste[germans]) == sorted(people.taste[germans])
    assert (moved.taste[~germans] == people.taste[~germans]).all()
    assert (moved.taste != people.taste).any()
