"""`streamrec monitor drift`: the contract's keys, and who is told what."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from cli.main import app

RUN = CliRunner()


@pytest.fixture
def frames(tmp_path: Path) -> Path:
    for name, seed, share in (("a", 1, 0.2), ("same", 2, 0.2), ("moved", 3, 0.4)):
        rng = np.random.default_rng(seed)
        word = rng.choice(["DE", "FR"], 2_000, p=[share, 1 - share])
        pq.write_table(pa.table({"country": word, "price": rng.normal(size=2_000)}), tmp_path / f"{name}.parquet")
    return tmp_path


def drift(frames: Path, current: str, *more: str) -> tuple[int, str]:
    paths = ["--reference", str(frames / "a.parquet"), "--current", str(frames / f"{current}.parquet")]
    result = RUN.invoke(app, ["monitor", "drift", *paths, *more])
    return result.exit_code, result.stdout


@pytest.mark.parametrize(("current", "verdict"), [("same", "none"), ("moved", "drift")])
@pytest.mark.parametrize("engine", ["alibi", "scipy"])
def test_the_document_has_the_keys_of_the_contract(frames: Path, current: str, verdict: str, engine: str) -> None:
    code, text = drift(frames, current, "--engine", engine, "--json")
    document = json.loads(text)
    assert (code, document["verdict"], document["engine"]) == (0, verdict, engine)
    assert set(document["features"]) == {"country", "price"}
    country = document["features"]["country"]
    assert {"test", "statistic", "p", "p_adjusted", "drift"} <= set(country)
    assert country["drift"] is (verdict == "drift")


def test_the_engine_is_alibi_where_it_is_installed_and_the_answer_says_so(frames: Path) -> None:
    assert json.loads(drift(frames, "same", "--json", "--features", "country")[1])["engine"] == "alibi"


def test_people_get_a_table_and_out_keeps_the_document(frames: Path) -> None:
    code, text = drift(frames, "moved", "--engine", "scipy", "--out", str(frames / "kept" / "drift.json"))
    assert code == 0
    assert text.startswith("drift  2,000 rows against 2,000, by scipy")
    assert json.loads((frames / "kept" / "drift.json").read_text())["verdict"] == "drift"


@pytest.mark.parametrize(
    ("current", "more", "code"),
    [("no", (), 4), ("same", ("--engine", "r"), 2), ("same", ("--alpha", "2"), 2), ("same", ("--features", "x"), 2)],
)
def test_wrong_words_and_missing_files_have_exit_codes(
    frames: Path, current: str, more: tuple[str, ...], code: int
) -> None:
    assert drift(frames, current, *more)[0] == code


def test_the_command_line_starts_without_either_engine() -> None:
    code = "import sys, cli.main; print({'alibi_detect', 'scipy', 'torch'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
