"""A training by two processes of torchrun on one machine: gloo, on the CPU."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from contracts.settings import Settings
from training.pipeline import TrainConfig, TrainResult

# As cli/train.py does it, with a configuration of few steps.
PROGRAM = """
import json, sys
from pathlib import Path
from contracts.settings import Settings
from training import parallel
from training.pipeline import TrainConfig, train

data, home, config = sys.argv[1:]
if parallel.follows():
    raise SystemExit(parallel.follow())
with parallel.lead():
    config = TrainConfig.model_validate_json(config)
    result = train(Path(data), until_us=None, seed=1, settings=Settings(home=Path(home)), config=config)
print(json.dumps(dict(result.metrics)))
"""


def by_two(*program: str, home: Path) -> subprocess.CompletedProcess[str]:
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    return subprocess.run(
        [*torchrun, *program],
        env=os.environ | {"STREAMREC_HOME": str(home)},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


@pytest.mark.slow
def test_two_processes_register_one_run_like_that_of_one(
    data: Path, quick: TrainConfig, whole: tuple[TrainResult, Settings], tmp_path: Path
) -> None:
    import mlflow

    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    home = tmp_path / "home"
    ended = by_two(str(program), str(data), str(home), quick.model_dump_json(), home=home)
    assert ended.returncode == 0, ended.stderr
    metrics = json.loads(ended.stdout)  # one document: the other process printed nothing
    client = mlflow.MlflowClient(f"sqlite:///{home}/mlflow.db")
    runs = client.search_runs([e.experiment_id for e in client.search_experiments()])
    assert [run.info.status for run in runs] == ["FINISHED"]
    assert [int(model.latest_versions[0].version) for model in client.search_registered_models()] == [1, 1, 1]
    alone = whole[0].metrics
    assert metrics["test_users"] == alone["test_users"]
    for name in ("ndcg@10", "recall@10", "recall@500"):
        assert metrics[name] == pytest.approx(alone[name], abs=3 * (metrics[f"{name}_se"] + alone[f"{name}_se"]))


@pytest.mark.slow
def test_what_ends_the_first_process_ends_the_other_with_the_same_code(tmp_path: Path) -> None:
    ended = by_two("-m", "cli", "train", "--data", str(tmp_path / "nothing"), home=tmp_path)
    assert "there is no data set at" in ended.stderr
    assert ended.stderr.count("error:") == 1  # the others say nothing
    assert "exitcode  : 4" in ended.stderr
    assert ended.stdout == ""
