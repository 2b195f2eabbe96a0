import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from contracts.errors import Unreachable
from contracts.routing import Target
from registry.artifacts import KINDS, model_name
from registry.reconcile import BACKOFF_S, SECOND, NoAliases, Reconciler, reconcile, wanted_versions
from registry.releases.values import ControlState

NAMES = [model_name(kind) for kind in KINDS]


@dataclass
class FakeMlflow:
    """aliases: model → alias → number. dies_after: writes until it is gone."""

    aliases: dict[str, dict[str, int]] = field(default_factory=lambda: {name: {} for name in NAMES})
    writes: list[tuple[str, ...]] = field(default_factory=list)
    dies_after: int | None = None

    def search_registered_models(self, filter_string: str, max_results: int) -> list[Any]:
        name = filter_string.split("'")[1]
        return [SimpleNamespace(aliases=dict(self.aliases[name]))] if name in self.aliases else []

    def set_registered_model_alias(self, name: str, alias: str, version: str) -> None:
        self._write("set", name, alias, version)
        self.aliases[name][alias] = int(version)

    def delete_registered_model_alias(self, name: str, alias: str) -> None:
        self._write("delete", name, alias)
        del self.aliases[name][alias]

    def _write(self, *what: str) -> None:
        if self.dies_after is not None and len(self.writes) >= self.dies_after:
            raise ConnectionError("gone")
        self.writes.append(what)


def all_on(**numbers: int) -> dict[str, dict[str, int]]:
    return {name: dict(numbers) for name in NAMES}


def wanted(champion: int, challenger: int | None = None) -> dict[str, dict[Any, int]]:
    return {
        "champion": dict.fromkeys(KINDS, champion),
        "challenger": dict.fromkeys(KINDS, challenger) if challenger else {},
    }


def test_aliases_come_onto_the_versions_of_champion_and_challenger_and_again_nothing_is_done() -> None:
    mlflow = FakeMlflow()
    assert len(reconcile(mlflow, wanted(3, 4))) == 6  # type: ignore[arg-type]
    assert mlflow.aliases == all_on(champion=3, challenger=4)
    assert reconcile(mlflow, wanted(3, 4)) == []  # type: ignore[arg-type]


def test_a_stale_challenger_is_removed_and_other_peoples_aliases_stay() -> None:
    mlflow = FakeMlflow(all_on(champion=3, challenger=4, mine=1))
    reconcile(mlflow, wanted(4))  # type: ignore[arg-type]
    assert mlflow.aliases == all_on(champion=4, mine=1)


@pytest.mark.parametrize("writes", range(6))
def test_a_death_after_any_write_is_ended_by_the_next_run(writes: int) -> None:
    mlflow = FakeMlflow(all_on(champion=3, challenger=4), dies_after=writes)
    with pytest.raises(Unreachable):
        reconcile(mlflow, wanted(4))  # type: ignore[arg-type]
    mlflow.dies_after = None
    reconcile(mlflow, wanted(4))  # type: ignore[arg-type]
    assert mlflow.aliases == all_on(champion=4)


def test_a_bento_that_is_not_here_leaves_its_alias_alone_and_says_so(tmp_path: Path) -> None:
    state = ControlState(champion=Target(bento="streamrec:elsewhere"))
    found, problems = wanted_versions(state, tmp_path)
    assert "champion" not in found
    assert "streamrec:elsewhere" in problems[0]
    mlflow = FakeMlflow(all_on(champion=3))
    reconcile(mlflow, found)  # type: ignore[arg-type]
    assert mlflow.aliases == all_on(champion=3)


def test_versions_come_from_the_labels_of_the_bento(tmp_path: Path) -> None:
    folder = tmp_path / "bentoml" / "bentos" / "streamrec" / "a"
    folder.mkdir(parents=True)
    labels = {f"mlflow.{kind}": f"models:/{model_name(kind)}/7" for kind in KINDS}
    (folder / "bento.yaml").write_text(yaml.safe_dump({"name": "streamrec", "version": "a", "labels": labels}))
    found, problems = wanted_versions(ControlState(champion=Target(bento="streamrec:a")), tmp_path)
    assert found == {"champion": dict.fromkeys(KINDS, 7), "challenger": {}}
    assert problems == []


def attend(reconciler: Reconciler, champion: str, now_us: int) -> str | None:
    """Until the process that runs has ended and was seen to."""
    deadline = time.monotonic() + 10
    problem = reconciler.want(champion, None, now_us)
    while reconciler.running and time.monotonic() < deadline:
        time.sleep(0.005)
        problem = reconciler.want(champion, None, now_us)
    return problem


def script(tmp_path: Path, code: str) -> tuple[str, ...]:
    marks = tmp_path / "marks"
    return (sys.executable, "-S", "-c", f"open({str(marks)!r}, 'a').write('x'); {code}")


def runs(tmp_path: Path) -> int:
    marks = tmp_path / "marks"
    return len(marks.read_text()) if marks.exists() else 0


def test_a_process_is_started_once_for_what_is_wanted_and_again_when_that_changes(tmp_path: Path) -> None:
    reconciler = Reconciler(script(tmp_path, "pass"))
    now_us = 10**15
    for second in range(20):
        assert attend(reconciler, "streamrec:a", now_us + second * SECOND) is None
    assert runs(tmp_path) == 1
    attend(reconciler, "streamrec:b", now_us + 20 * SECOND)
    assert runs(tmp_path) == 2


def test_while_mlflow_is_away_it_is_tried_again_with_growing_pauses_and_reported(tmp_path: Path) -> None:
    reconciler = Reconciler(
        script(tmp_path, "import sys; print('MLflow does not answer', file=sys.stderr); sys.exit(5)")
    )
    now_us = 10**15
    problem = attend(reconciler, "streamrec:a", now_us)
    assert problem is not None
    assert "MLflow does not answer" in problem
    attend(reconciler, "streamrec:a", now_us + int(BACKOFF_S[0] * SECOND) - 1)
    assert runs(tmp_path) == 1
    attend(reconciler, "streamrec:a", now_us + int(BACKOFF_S[0] * SECOND))
    assert runs(tmp_path) == 2
    attend(reconciler, "streamrec:a", now_us + int((BACKOFF_S[0] + BACKOFF_S[1]) * SECOND) - 1)
    assert runs(tmp_path) == 2


def test_a_process_that_hangs_is_ended_and_nobody_waits_for_it(tmp_path: Path) -> None:
    reconciler = Reconciler(script(tmp_path, "import time; time.sleep(60)"), timeout_s=1)
    began = time.monotonic()
    assert reconciler.want("streamrec:a", None, 0) is None
    assert time.monotonic() - began < 1
    problem = reconciler.want("streamrec:a", None, 2 * SECOND)
    assert problem is not None
    assert "too long" in problem
    assert not reconciler.running


def test_nothing_is_started_while_there_is_no_champion(tmp_path: Path) -> None:
    reconciler = Reconciler(script(tmp_path, "pass"))
    assert reconciler.want(None, "streamrec:a", 0) is None
    assert not reconciler.running


def test_the_fake_remembers_what_was_wanted() -> None:
    fake = NoAliases()
    for _ in range(2):
        assert fake.want("a", None, 0) is None
    assert fake.wanted == [("a", None)]
