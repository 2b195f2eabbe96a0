import pytest

from features import inputs
from features.ranking import row_schema
from features.registry import REGISTRY


def test_every_column_of_a_row_is_computed_from_inputs_that_are_there_when_a_model_predicts() -> None:
    for column in row_schema().names:
        assert inputs.inputs_of(column)
        assert set(inputs.inputs_of(column)) <= set(inputs.known())
    with pytest.raises(KeyError):
        inputs.inputs_of("clicked_later")


def test_a_feature_of_the_registry_goes_by_its_own_name() -> None:
    for name in ("item_pop_7d", "user_tenure_days"):
        assert name in REGISTRY
        assert inputs.inputs_of(f"log_{name}") == (name,)


def test_what_is_not_named_takes_along_every_column_that_needs_it() -> None:
    rest = [name for name in inputs.of_rows() if name not in (inputs.DEVICE, inputs.PRICE)]
    assert inputs.withheld(rest) == ("log_price", "price_known", "price_gap", "price_distance", "met_price", "device")
    assert inputs.withheld(inputs.of_rows()) == ()
    assert inputs.withheld(None) == ()
