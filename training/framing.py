"""A framing against a data set and the code: refused where it says what is not so, and spelt out for the run."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from contracts.dataset import DatasetConfig, Positive
from contracts.errors import DataError
from contracts.framing import Frame, Framing, TargetFrame
from features import inputs
from features.labels import LabelRule
from registry.artifacts import Kind
from training.ranking import RankingConfig
from training.retrieval import RetrievalConfig

FEATURES = "streamrec features list"
LEARNED = ("two_tower", "graph")  # sources that learn what is taken up in the days to come, a period at a time


@dataclass(frozen=True, slots=True)
class Framed:
    """A framing that holds. retrieval, ranking: the configuration with its horizons. warnings: what it takes away."""

    framing: Framing
    retrieval: RetrievalConfig
    ranking: RankingConfig
    document: Mapping[Kind, Mapping[str, Any]]
    warnings: tuple[str, ...]


def framed(framing: Framing, config: DatasetConfig, retrieval: RetrievalConfig, ranking: RankingConfig) -> Framed:
    """Check `framing` and apply its horizons.

    Raises:
        DataError: it names events that are no wishes of this data set or inputs that are not there when a model
            predicts, or retrieval reads one that it does not name.
    """
    events = LabelRule.of(config).events
    read = retrieval_inputs(config)
    for kind, frame in _frames(framing).items():
        _check_target(kind, frame, events, config.name)
        _check_features(kind, frame, {*inputs.known(), *read})
    unknown = sorted(framing.ranking.gains.keys() - set(events))
    if unknown:
        raise DataError(
            f"framing: `ranking.gains` names {', '.join(unknown)}; the wishes of {config.name} are {', '.join(events)}",
            next_command="mend [[positives]] in dataset.toml, or the framing",
        )
    if framing.retrieval.features is not None and (unsaid := sorted(set(read) - set(framing.retrieval.features))):
        raise DataError(
            f"framing: retrieval reads {', '.join(unsaid)}, which `retrieval.features` does not name as known when it "
            "predicts",
            next_command="name them, or take an attribute out of [[features]] in dataset.toml",
        )
    if framing.retrieval.horizon_d is not None:
        period = {"period_d": framing.retrieval.horizon_d}
        learned = {name: getattr(retrieval, name).model_copy(update=period) for name in LEARNED}
        retrieval = retrieval.model_copy(update=learned)
    if framing.ranking.horizon_d is not None:
        ranking = ranking.model_copy(update={"horizon_d": framing.ranking.horizon_d})
    warnings = tuple(
        f"{model} does not read {', '.join(columns)}: the framing does not name what they are computed from"
        for model, columns in (
            ("the ranker", inputs.withheld(framing.ranking.features)),
            ("the light ranker", inputs.withheld(framing.fallback.features)),
        )
        if columns
    )
    document = _spelt_out(framing, config, retrieval, ranking)
    return Framed(framing, retrieval, ranking, document, warnings)


def retrieval_inputs(config: DatasetConfig) -> tuple[str, ...]:
    """What the sources read of users, requests and items, sorted."""
    attributes = (
        f"{inputs.ATTRIBUTE}{a.column}" for a in config.features if a.kind == "categorical" and a.table != "items"
    )
    items = (inputs.CATEGORY, inputs.CREATOR, inputs.PRICE, inputs.TITLE, "item_age_days")
    return tuple(sorted({inputs.HISTORY, inputs.MET, *items, *attributes}))


def _wish(positive: Positive) -> str:
    return positive.event if positive.min_value is None else f"{positive.event} ≥ {positive.min_value:g}"


def _frames(framing: Framing) -> dict[Kind, Frame]:
    return {"retrieval": framing.retrieval, "ranking": framing.ranking, "fallback": framing.fallback}


def _check_target(kind: Kind, frame: Frame, events: tuple[str, ...], name: str) -> None:
    if isinstance(frame, TargetFrame) and frame.target and set(frame.target) != set(events):
        raise DataError(
            f"framing: `{kind}.target` is {', '.join(frame.target)}; the wishes of {name} are {', '.join(events)}",
            next_command="mend [[positives]] in dataset.toml, which training, evaluation and monitoring share",
        )


def _check_features(kind: Kind, frame: Frame, there: set[str]) -> None:
    missing = sorted(set(frame.features or ()) - there)
    if missing:
        raise DataError(
            f"framing: `{kind}.features` names {', '.join(missing)}, which nothing gives when a model predicts",
            next_command=FEATURES,
        )


def _days(numbers: set[float]) -> str:
    return f"{' or '.join(f'{days:g}' for days in sorted(numbers))} days"


def _spelt_out(
    framing: Framing, config: DatasetConfig, retrieval: RetrievalConfig, ranking: RankingConfig
) -> dict[Kind, dict[str, Any]]:
    """By model: what held, with nothing left to look up."""
    rule = LabelRule.of(config)
    share = f"the next {ranking.window_share:.0%} of the rows"
    ahead = share if ranking.horizon_d is None else f"{share}, at most {ranking.horizon_d:g} days"
    gains = {event: framing.ranking.gains.get(event, 1.0) for event in rule.events}
    of_rows = {"target": gains, "horizon": ahead}

    def rest(frame: Frame, read: tuple[str, ...]) -> dict[str, Any]:
        return {"features": list(read), "latency": frame.latency, "budget_ms": frame.budget_ms}

    def rows(frame: Frame) -> tuple[str, ...]:
        there = inputs.of_rows()
        return there if frame.features is None else tuple(name for name in there if name in frame.features)

    return {
        "retrieval": {
            "target": {_wish(positive): positive.weight for positive in rule.positives},
            "horizon": _days({getattr(retrieval, name).period_d for name in LEARNED}),
            **rest(framing.retrieval, retrieval_inputs(config)),
        },
        "ranking": {
            **of_rows,
            "costs": framing.ranking.costs.model_dump(),
            **rest(framing.ranking, rows(framing.ranking)),
        },
        "fallback": {
            **of_rows,
            "costs": framing.fallback.costs.model_dump(),
            **rest(framing.fallback, rows(framing.fallback)),
        },
    }
