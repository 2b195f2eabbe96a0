import json
from pathlib import Path
from typing import Any

import yaml

from registry.artifacts import Bundle, Kind, seal
from registry.signatures import signature_of, write_mlmodel


def bundle(folder: Path, kind: Kind, **params: Any) -> Bundle:
    return seal(
        folder,
        kind=kind,
        feature_hash="f",
        catalogue_hash="c",
        signature="s",
        n_items=2,
        trained_until_us=1,
        clock="wall",
        log_end_us=1,
        params=params,
    )


def test_a_ranker_takes_rows_as_wide_as_its_schema(tmp_path: Path) -> None:
    (tmp_path / "schema.json").write_text(json.dumps({"columns": [{"name": str(i)} for i in range(7)]}))
    signature = signature_of(bundle(tmp_path, "ranking"))
    assert [i.shape for i in signature.inputs.inputs] == [(-1, 7)]
    assert [o.shape for o in signature.outputs.inputs] == [(-1,)]


def test_a_two_tower_query_takes_history_and_attributes_with_the_user_row_first(tmp_path: Path) -> None:
    signature = signature_of(bundle(tmp_path, "retrieval", attributes=["country", "device"]))
    assert {i.name: i.shape for i in signature.inputs.inputs} == {
        "history": (-1, 10),
        "history_age_h": (-1, 10),
        "attributes": (-1, 3),
    }
    assert signature.outputs.inputs[0].shape == (-1, 128)


def test_the_mlmodel_file_names_no_pickle_and_no_python_function(tmp_path: Path) -> None:
    made = bundle(tmp_path, "fallback")
    write_mlmodel(made, "run", "m-1", "digest", tmp_path / "MLmodel")
    document = yaml.safe_load((tmp_path / "MLmodel").read_text())
    assert set(document["flavors"]) == {"streamrec"}
    assert document["flavors"]["streamrec"]["manifest_sha256"] == "digest"
    assert document["signature"]
