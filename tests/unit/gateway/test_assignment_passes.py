import json
import timeit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bentos.gateway.passes import REMEMBERED, BadPass, PassReader
from contracts.errors import UsageError
from contracts.routing import MAX_PASS_BYTES, Pass
from contracts.signing import Signer
from registry.releases.passes import make_pass

NOW_US = 1_767_000_000_000_000
MINUTE_US = 60_000_000
SIGNER = Signer.make()


def made(**more: object) -> str:
    values: dict[str, object] = {"now_us": NOW_US, "minutes": 5, "variant": "candidate", **more}
    return make_pass(SIGNER, **values)  # type: ignore[arg-type]


def test_a_pass_says_what_it_was_made_to_say() -> None:
    token = made(experiments={"e": "control"}, flags={"f": False}, name="Kim")
    assert PassReader(SIGNER.verifier).open(token, NOW_US) == Pass(
        variant="candidate",
        experiments={"e": "control"},
        flags={"f": False},
        expires_us=NOW_US + 5 * MINUTE_US,
        name="Kim",
    )


def test_a_pass_is_over_at_its_time_also_when_it_was_known() -> None:
    reader, token = PassReader(SIGNER.verifier), made()
    reader.open(token, NOW_US + 5 * MINUTE_US - 1)
    with pytest.raises(BadPass, match="is over"):
        reader.open(token, NOW_US + 5 * MINUTE_US)
    with pytest.raises(BadPass, match="is over"):
        PassReader(SIGNER.verifier).open(token, NOW_US + 5 * MINUTE_US)


def test_a_pass_signed_by_another_key_is_refused() -> None:
    with pytest.raises(BadPass, match="not a token that was signed here"):
        PassReader(Signer.make().verifier).open(made(), NOW_US)


def test_a_forged_pass_is_refused() -> None:
    payload, signature = made().split(".")
    other = SIGNER.token(json.dumps({"variant": "control", "expires_us": NOW_US * 2})).split(".")[0]
    reader = PassReader(SIGNER.verifier)
    forged = (
        f"{other}.{signature}",
        payload,
        f"{payload}.",
        f".{signature}",
        "",
        "a.b",
        "é.ü",
        f"{payload}.{signature}A",
    )
    for token in forged:
        with pytest.raises(BadPass):
            reader.open(token, NOW_US)


@pytest.mark.parametrize(
    "payload", ["", "{}", "[]", '{"expires_us": 1, "more": 2}', '{"variant": "fallback", "expires_us": 9}', "\0"]
)
def test_another_document_signed_by_our_key_is_no_pass(payload: str) -> None:
    with pytest.raises(BadPass, match="not a pass"):
        PassReader(SIGNER.verifier).open(SIGNER.token(payload), NOW_US)


def test_a_pass_over_2_kb_is_refused_before_it_is_read() -> None:
    long = SIGNER.token(Pass(expires_us=NOW_US * 2, experiments={"e" * 2000: "control"}).model_dump_json())
    with pytest.raises(BadPass, match="at most 2048"):
        PassReader(SIGNER.verifier).open(long, NOW_US)
    with pytest.raises(BadPass, match="at most 2048"):
        PassReader(SIGNER.verifier).open("x" * (1 << 20), NOW_US)


@given(st.text(max_size=200))
def test_any_other_text_is_refused_and_nothing_else_is_raised(token: str) -> None:
    with pytest.raises(BadPass):
        PassReader(SIGNER.verifier).open(token, NOW_US)


def test_only_so_many_passes_are_remembered_and_bad_ones_never() -> None:
    reader = PassReader(SIGNER.verifier)
    for i in range(REMEMBERED + 20):
        reader.open(made(name=f"n{i}"), NOW_US)
    for i in range(100):
        with pytest.raises(BadPass):
            reader.open(f"x{i}", NOW_US)
    assert len(reader._known) == REMEMBERED


def test_a_pass_that_is_known_costs_less_than_5_microseconds() -> None:
    reader, token = PassReader(SIGNER.verifier), made()
    reader.open(token, NOW_US)
    best = min(timeit.repeat(lambda: reader.open(token, NOW_US), number=2000, repeat=7)) / 2000
    assert best < 5e-6


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"minutes": 0}, "holds for up to"),
        ({"minutes": float("nan")}, "holds for up to"),
        ({"minutes": 60 * 24 * 31}, "holds for up to"),
        ({"variant": None}, "this one does nothing"),
        ({"experiments": {"e": "candidate"}}, "are `treatment` and `control`"),
        ({"flags": {f"flag-{i:0100}": True for i in range(20)}}, "longer than the header"),
        ({"name": "x" * 65}, "at most 64"),
    ],
)
def test_a_pass_that_no_gateway_would_take_is_not_made(values: dict[str, object], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        made(**values)


def test_the_longest_pass_that_is_made_is_taken() -> None:
    token = ""
    for n in range(1, 2000, 7):
        try:
            token = made(experiments={"e" * n: "control"})
        except UsageError:
            break
    assert MAX_PASS_BYTES - 20 < len(token) <= MAX_PASS_BYTES
    PassReader(SIGNER.verifier).open(token, NOW_US)
