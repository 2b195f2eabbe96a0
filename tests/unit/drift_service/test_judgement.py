"""A window against training and against its season; no detector is faked."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pytest

from monitoring.drift.base import Result
from monitoring.drift.engines.choose import choose
from monitoring.drift.service.judgement import Judgement, judgement

ENGINE = choose("scipy")
FEATURES = ("price", "age", "country")


def shop(seed: int, n: int = 3_000, *, gifts: float = 0.1, price: float = 1.0, missing: float = 0.0) -> pa.Table:
    """Rows of a shop that sells more gifts, and so cheaper things, before Christmas."""
    random = np.random.default_rng(seed)
    is_gift = random.random(n) < gifts
    prices = np.where(is_gift, random.lognormal(0.5, 0.5, n), random.lognormal(2, 0.8, n)) * price
    age = random.gamma(2, 20, n)
    start = datetime(2010, 11, 1, tzinfo=UTC)
    return pa.table(
        {
            "timestamp": [start + timedelta(minutes=i) for i in range(n)],
            "price": pa.array(prices, mask=random.random(n) < missing),
            "age": age,
            "country": np.array(["GB", "DE", "FR"])[random.choice(3, n, p=[0.8, 0.12, 0.08])],
            "category": np.where(is_gift, "gift", np.array(["bag", "clock"])[random.integers(0, 2, n)]),
        }
    )


def judged(current: pa.Table, season: pa.Table | None = None, **options: object) -> Judgement:
    return judgement(shop(1, 20_000), current, FEATURES, engine=ENGINE, season=season, **options)  # type: ignore[arg-type]


def test_a_window_like_training_is_none_and_the_psi_of_each_input_is_told():
    found = judged(shop(2))
    assert found.verdict == "none"
    told = {name: found.found[f"input.{name}"].psi for name in FEATURES}
    assert all(psi is not None and 0 < psi < 0.02 for psi in told.values())


def test_november_is_seasonal_when_last_november_was_like_it_and_drift_when_it_was_not():
    november = shop(2, gifts=0.4)
    assert judged(november).verdict == "drift"
    with_season = judged(november, shop(3, gifts=0.4))
    assert with_season.verdict == "seasonal"
    assert {f.column for f in with_season.of("seasonal")} >= {"price", "category"}
    assert judged(november, shop(3, gifts=0.1)).verdict == "drift"


def test_a_real_drift_in_november_is_not_hidden_by_the_season():
    found = judged(shop(2, gifts=0.4, missing=0.05), shop(3, gifts=0.4)).found
    assert found["missing.price"].verdict == "drift"
    assert found["output.category"].verdict == "seasonal"


def test_a_season_that_did_not_come_is_told_and_not_judged():
    judgement_ = judged(shop(2), shop(3, gifts=0.4))
    assert judgement_.verdict == "none"
    assert "not as in the same season" in judgement_.found["input.price"].why


@pytest.mark.parametrize("season", [shop(3, 50, gifts=0.4), None])
def test_a_season_that_is_not_known_excuses_nothing(season: pa.Table | None):
    found = judged(shop(2, gifts=0.4), season, no_season="no past weeks in the logs")
    assert found.verdict == "drift"
    assert "no past weeks" in found.found["input.price"].why or "season is not known" in found.found["input.price"].why


def test_what_weighs_little_is_low_and_what_the_ranker_hangs_on_is_not():
    window = shop(2, price=1.5)
    light = judged(window, importance={"price": 0.001, "age": 0.1, "country": 0.1})
    heavy = judged(window, importance={"price": 0.2, "age": 0.01, "country": 0.0})
    assert light.verdict == heavy.verdict == "drift"
    assert (light.severity.level, heavy.severity.level) == ("low", "moderate")
    assert judged(window, importance={"price": 0.001, "age": 1.0}, outcomes="moved").severity.level == "high"


@pytest.mark.parametrize(
    ("check", "level"),
    [
        ("embedding.items", "moderate"),
        ("embedding.users", "low"),
        ("output.sources", "low"),
        ("output.coverage", "low"),
    ],
)
def test_what_drifted_without_a_psi_is_no_none(check: str, level: str):
    found = Result("made", 0.9, None, 0.1, "drift", effect=0.9)
    judgement_ = judged(shop(2), further={check: found})
    assert judgement_.verdict == "drift"
    assert judgement_.severity.level == level
    assert check in judgement_.severity.text
    assert judgement_.severity.weighted == 0.0


def test_a_drift_names_its_country_and_its_hour():
    window = shop(2)
    late = np.arange(3_000) >= 2_000
    german = np.asarray(window["country"]) == "DE"
    price = np.asarray(window["price"]) * np.where(late & german, 6.0, 1.0)
    window = window.set_column(1, "price", pa.array(price))
    found = judged(window, slicings=("country", "category")).found["input.price"]
    assert found.verdict == "drift"
    assert found.where[0].slice == "country=DE"
    assert found.since_us is not None
    began = datetime.fromtimestamp(found.since_us / 1e6, UTC)
    assert abs(began - (datetime(2010, 11, 1, tzinfo=UTC) + timedelta(minutes=2_000))) < timedelta(hours=12)


def test_columns_that_cannot_be_judged_are_named_and_the_rest_goes_on():
    window = shop(2, gifts=0.4).append_column("new", pa.array(np.zeros(3_000)))
    window = window.set_column(2, "age", pa.array(["old"] * 3_000)).drop_columns(["country"])
    found = judgement(shop(1, 20_000), window, (*FEATURES, "new"), engine=ENGINE).found
    assert {n: f.verdict for n, f in found.items() if n.startswith("input")} == {
        "input.price": "drift",
        "input.age": "inconclusive",
        "input.country": "inconclusive",
        "input.new": "inconclusive",
    }
    assert "words in the window" in found["input.age"].why
    assert "dropped column" in found["input.country"].why
    assert "new column" in found["input.new"].why


@pytest.mark.parametrize("rows", [0, 1])
def test_an_empty_window_and_one_row_are_inconclusive(rows: int):
    found = judged(shop(2).slice(0, rows))
    assert found.verdict == "inconclusive"
    assert all(f.why for f in found.found.values())


def test_forty_windows_without_drift_raise_no_more_alarms_than_alpha_allows():
    alarms = sum(judged(shop(seed)).verdict == "drift" for seed in range(100, 140))
    assert alarms <= 6  # more than 6 of 40 at 5 % has probability 0.0034
