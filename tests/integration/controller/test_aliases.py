"""MLflow aliases after the control database, with a real MLflow, wherever a crash tears the two apart."""

import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml

from registry.artifacts import KINDS, model_name
from registry.mlflow_client import connect
from registry.releases import commands
from tests.integration.controller.conftest import NEW, OLD, Stack, until

if TYPE_CHECKING:
    from mlflow import MlflowClient


def add_bento(home: Path, tag: str, number: int) -> None:
    folder = home / "bentoml" / "bentos" / "streamrec" / tag.partition(":")[2]
    folder.mkdir(parents=True)
    labels = {f"mlflow.{kind}": f"models:/{model_name(kind)}/{number}" for kind in KINDS}
    document = {"name": "streamrec", "version": folder.name, "labels": labels}
    (folder / "bento.yaml").write_text(yaml.safe_dump(document))


@pytest.fixture
def mlflow(stack: Stack) -> "MlflowClient":
    """Two versions of the three models; OLD is pinned to the first of each, NEW to the second."""
    client = connect(stack.settings)
    for kind in KINDS:
        client.create_registered_model(model_name(kind))
        for _ in range(2):
            client.create_model_version(model_name(kind), source=str(stack.home))
    add_bento(stack.home, OLD, 1)
    add_bento(stack.home, NEW, 2)
    return client


def aliases(client: "MlflowClient") -> set[tuple[tuple[str, int], ...]]:
    """The aliases of each model, as one set: one element where all three agree."""
    return {
        tuple(sorted((a, int(v)) for a, v in client.get_registered_model(model_name(kind)).aliases.items()))
        for kind in KINDS
    }


def test_aliases_follow_whatever_dies_between_database_and_mlflow(stack: Stack, mlflow: "MlflowClient") -> None:
    first = stack.controller()
    stack.first_champion()
    until(lambda: aliases(mlflow) == {(("champion", 1),)}, "the first champion has its aliases", 60, 0.3)
    stack.canary()
    until(lambda: aliases(mlflow) == {(("challenger", 2), ("champion", 1))}, "the candidate is challenger", 60, 0.3)

    stack.kill(first)
    stack.run(commands.promote, force=True)  # committed, and nobody alive to move the aliases
    document = commands.status(stack.store, stack.settings, now_us=time.time_ns() // 1000)
    assert document["champion"] == NEW
    # The other way round: somebody had moved one of them already.
    mlflow.set_registered_model_alias(model_name("ranking"), "champion", "2")

    stack.controller()
    until(lambda: aliases(mlflow) == {(("champion", 2),)}, "a reconcile has ended the job", 60, 0.3)
    until(lambda: stack.routed() == (NEW, 0), "and the table too")
