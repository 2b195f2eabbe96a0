"""The framing of a training: for each model what it predicts, how far ahead, from what, what its errors cost, and how
long it may take. Whoever trains reads it; nothing stands here that nobody reads (docs/models.md, "Framing").
"""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from contracts.documents import read_toml

LatencyClass = Literal["instant", "fast", "interactive", "relaxed"]
# Milliseconds that one request may spend in the model. `fast` and `interactive` are what serving gives retrieval and
# ranking by default (`retrieval_budget_ms`, `ranking_budget_ms`); the gate judges by the smaller of the two, as nobody
# waits longer. `instant` fits into what a late answer has left.
LATENCY_MS: dict[LatencyClass, float] = {"instant": 5.0, "fast": 30.0, "interactive": 50.0, "relaxed": 150.0}


class Frame(BaseModel):
    """Of one model.

    features: inputs that are known when it predicts, by the names of features/inputs.py; None: all that serving has.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    features: tuple[str, ...] | None = None
    latency: LatencyClass

    @property
    def budget_ms(self) -> float:
        """What one request may spend in the model."""
        return LATENCY_MS[self.latency]


class TargetFrame(Frame):
    """target: the events that count as a wish; they must be those of the data set, which has the one definition of
    it; empty: as the data set says. horizon_d: days ahead; None: as the training's configuration says."""

    target: tuple[str, ...] = ()
    horizon_d: float | None = Field(None, gt=0)


class Costs(BaseModel):
    """Of showing what nobody wanted, and of missing what somebody did. Only their ratio matters."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    false_positive: float = Field(1.0, gt=0)
    false_negative: float = Field(1.0, gt=0)


class RetrievalFrame(TargetFrame):
    """Its errors have no cost here: what an event is worth to it are the weights of the data set."""

    latency: LatencyClass = "fast"


class RankingFrame(TargetFrame):
    """gains: what a wish is worth to the ranker, by event; an event that is not named is worth 1."""

    latency: LatencyClass = "interactive"
    costs: Costs = Costs()
    gains: dict[str, Annotated[float, Field(gt=0)]] = {}


class FallbackFrame(Frame):
    """It learns from the ranker's rows: target, horizon and gains are the ranker's."""

    latency: LatencyClass = "instant"
    costs: Costs = Costs()


class Framing(BaseModel):
    """One document. Without one these defaults hold."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    retrieval: RetrievalFrame = RetrievalFrame()
    ranking: RankingFrame = RankingFrame()
    fallback: FallbackFrame = FallbackFrame()

    @property
    def budgets_ms(self) -> dict[str, float]:
        """By model: what one request may spend in it."""
        return {
            "retrieval": self.retrieval.budget_ms,
            "ranking": self.ranking.budget_ms,
            "fallback": self.fallback.budget_ms,
        }

    @classmethod
    def read(cls, path: Path | None) -> "Framing":
        """The defaults without a path.

        Raises:
            DataError: missing, not TOML, an unknown key, or a value out of range.
        """
        return cls() if path is None else read_toml(cls, path, "framing")
