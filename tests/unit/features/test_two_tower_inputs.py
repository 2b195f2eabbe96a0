import numpy as np

from features.two_tower_inputs import MAX_AGE_H, AttributeVocab, user_inputs

VOCAB = AttributeVocab(["country", "device"], {"country": ["", "DE", "FR"], "device": ["", "ios"]}, np.array([[1, 0]]))


def test_what_the_request_says_goes_before_what_is_stored() -> None:
    assert VOCAB.row(0, {}).tolist() == [1, 1, 0]
    assert VOCAB.row(0, {"country": "FR", "device": "ios"}).tolist() == [1, 2, 1]


def test_an_unknown_user_or_value_is_zero() -> None:
    assert VOCAB.row(-1, {"country": "XX"}).tolist() == [0, 0, 0]
    assert VOCAB.row(0, {"country": "XX"}).tolist() == [1, 1, 0]


def test_history_is_cut_to_ten_padded_with_zero_and_leaves_unknown_items_out() -> None:
    long = np.arange(12, dtype=np.int32)
    short = np.array([7, -1, 5], dtype=np.int32)
    ages = [np.arange(12, dtype=np.float32), np.array([-1.0, 2.0, np.nan], dtype=np.float32)]
    out = user_inputs([long, short], ages, np.zeros((2, 3), np.int64))
    assert out["history"].tolist() == [list(range(1, 11)), [8, 6] + [0] * 8]
    assert out["history_age_h"][1].tolist() == [0.0] * 10  # negative and NaN ages are "now"
    assert {name: value.dtype.name for name, value in out.items()} == {
        "history": "int64",
        "history_age_h": "float32",
        "attributes": "int64",
    }


def test_infinite_ages_are_capped() -> None:
    out = user_inputs([np.array([1], np.int32)], [np.array([np.inf], np.float32)], np.zeros((1, 1), np.int64))
    assert out["history_age_h"][0, 0] == np.float32(MAX_AGE_H)
