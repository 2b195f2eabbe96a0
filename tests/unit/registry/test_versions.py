from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.errors import StreamRecError, UsageError
from registry.artifacts import KINDS, model_name
from registry.versions import ModelRef, parse_ref


@pytest.mark.parametrize(
    ("text", "ref"),
    [
        ("models:/streamrec-ranking/3", ModelRef("ranking", None, 3)),
        ("streamrec-ranking/3", ModelRef("ranking", None, 3)),
        ("models:/streamrec-retrieval@champion", ModelRef("retrieval", "champion", None)),
        (" streamrec-fallback@challenger ", ModelRef("fallback", "challenger", None)),
        ("models:/streamrec-fallback/latest", ModelRef("fallback", None, 0)),
    ],
)
def test_a_reference_is_read_in_both_spellings(text: str, ref: ModelRef) -> None:
    assert parse_ref(text) == ref


@pytest.mark.parametrize(
    "text", ["", "streamrec-ranking", "models:/other/1", "streamrec-ranking/v1", "runs:/abc/model"]
)
def test_anything_else_is_an_error_that_names_the_models(text: str) -> None:
    with pytest.raises(UsageError, match="streamrec-retrieval"):
        parse_ref(text)


def test_a_model_of_the_wrong_kind_is_an_error_that_names_both() -> None:
    with pytest.raises(UsageError, match="fallback model, wanted streamrec-ranking"):
        parse_ref("streamrec-fallback/1", "ranking")


@given(st.sampled_from(KINDS), st.integers(1, 10**6))
def test_what_is_written_is_read_back(kind: str, number: int) -> None:
    ref = ModelRef(kind, None, number)  # type: ignore[arg-type]
    assert parse_ref(str(ref)) == ref
    assert str(ref) == f"models:/{model_name(kind)}/{number}"  # type: ignore[arg-type]


@given(st.text())
def test_no_text_ends_in_a_traceback(text: str) -> None:
    with suppress(StreamRecError):
        parse_ref(text)
