"""What a run has to have left to be repeated, and how two runs are compared."""

import json
from pathlib import Path

import pytest

from bentos.recommender.rules import default_rules
from contracts.errors import Refused
from contracts.framing import Framing
from contracts.quality import QualityPolicy
from registry.models import RunFacts
from training.pipeline import TrainConfig
from training.recipe import Recipe, recipe
from training.repeat import as_many, compare, config_of, other_than_then, told_to

TAGS = {"git_commit": "a" * 40, "git_dirty": "false", "code_digest": "1", "environment_digest": "2"}


def facts(status: str = "FINISHED", **tags: str) -> RunFacts:
    return RunFacts("r1", "train shop", status, 0, {}, {}, TAGS | tags, ())


def told() -> Recipe:
    return recipe(TrainConfig(), 7, None, default_rules(), QualityPolicy(), Framing())


class Folder:
    """A registry whose runs left one folder."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder

    def run_folder(self, run_id: str, name: str) -> Path | None:
        return self._folder


def test_a_recipe_is_read_as_it_was_written(tmp_path: Path) -> None:
    written = told()
    (tmp_path / "recipe.json").write_text(json.dumps(written.model_dump(mode="json")))
    assert told_to(facts(), Folder(tmp_path)) == written  # type: ignore[arg-type]
    assert config_of(written, facts()) == TrainConfig()


def test_a_run_that_did_not_end_or_left_no_recipe_is_refused() -> None:
    with pytest.raises(Refused, match="run r1 is FAILED"):
        told_to(facts("FAILED"), Folder(None))  # type: ignore[arg-type]
    with pytest.raises(Refused, match=r"left no recipe.json.*made by commit aaaa"):
        told_to(facts(), Folder(None))  # type: ignore[arg-type]


def test_a_recipe_of_another_code_is_refused_with_the_commit_that_made_it(tmp_path: Path) -> None:
    document = told().model_dump(mode="json") | {"weather": "rain"}
    (tmp_path / "recipe.json").write_text(json.dumps(document))
    with pytest.raises(Refused, match="`weather`") as raised:
        told_to(facts(), Folder(tmp_path))  # type: ignore[arg-type]
    assert raised.value.next_command == f"git checkout {'a' * 40}"


def test_other_features_are_refused() -> None:
    with pytest.raises(Refused, match=f"its features hash to 000000000000.*made by commit {'a' * 40}"):
        config_of(told().model_copy(update={"feature_hash": "0" * 64}), facts())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"moons": 2}, "`moons`"),  # a field that this code does not have
        ({"test_share": None}, "`test_share`"),
        ({"dcn": {"epochs": 4}}, r"dcn\.cross_layers"),  # fields that the other code did not have
        ({"dcn": TrainConfig().model_dump(mode="json")["dcn"] | {"towers": 3}}, r"dcn\.towers"),
    ],
)
def test_another_configuration_is_refused(change: dict[str, object], said: str) -> None:
    written = told()
    with pytest.raises(Refused, match=said):
        config_of(written.model_copy(update={"config": written.config | change}), facts())


def test_another_number_of_processes_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    as_many(told(), facts())
    with pytest.raises(Refused, match="by 2 processes at once, these are 1") as raised:
        as_many(told().model_copy(update={"processes": 2}), facts())
    assert raised.value.next_command == "torchrun --nproc-per-node 2 -m cli train --from-run r1"
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert told().processes == 2
    as_many(told(), facts())


def test_figures_are_compared_to_the_last_digit() -> None:
    then = {"ndcg@10": 0.1, "recall@10": 0.2, "gone": 1.0}
    assert compare("r1", then, dict(then)).verdict == "same"
    found = compare("r1", then, {"ndcg@10": 0.1, "recall@10": 0.2 + 1e-16 * 2, "new": 1.0})
    assert found.verdict == "differs"
    assert found.compared == 4
    assert set(found.differences) == {"recall@10", "gone", "new"}
    assert found.plain()["differences"]["gone"] == {"then": 1.0, "now": None, "difference": None}
    assert found.plain()["differences"]["recall@10"]["difference"] == pytest.approx(2e-16, rel=0.5)


def test_times_are_not_compared() -> None:
    found = compare("r1", {"p99_ms": 1.0, "seconds": 3.0, "train_s": 1.0, "auc": 0.5}, {"p99_ms": 2.0, "auc": 0.5})
    assert (found.verdict, found.compared) == ("same", 1)


def test_what_else_was_other_then_is_told() -> None:
    assert other_than_then(facts(), facts()) == ()
    said = other_than_then(facts(git_dirty="true"), facts(code_digest="9", environment_digest="9"))
    assert "made by commit aaaa" in said[0]
    assert "code/sources.tar.gz" in said[0]
    assert "installed packages" in said[1]
