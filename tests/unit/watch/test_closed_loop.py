"""The whole loop on a virtual clock, without a hand on it: the population drifts, the watch raises one alert, the
policy asks for a training, its result goes through a release, and the alert ends against the new model's reference.

Real: detectors, grouping, outbox, policy, history, controller, gates, evidence and statistics of the release. Played:
what a training makes (a model whose reference is what was served lately), and the processes.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from monitoring.drift.compare import compare
from monitoring.drift.engines.choose import choose
from monitoring.drift.frame import Frame
from monitoring.drift.question import Question
from monitoring.retraining import history
from monitoring.retraining.act import act
from monitoring.retraining.decide import Data, decide
from monitoring.signals import Signal
from monitoring.simulation.in_process import Simulation
from monitoring.simulation.population import Population, Visitors, drifted, population
from monitoring.watch.running import Job
from monitoring.watch.schema import Retraining, Rule
from monitoring.watch.state import DOCUMENT, state_from
from monitoring.watch.watch import Live
from tests.unit.watch.world import SCHEMA, World, minute

POLICY = Retraining(rules=(Rule(name="drift", kind="drift", signals=("drift.severity",), for_hours=0.4),))
ROWS = 3_000


def frame(people: Population, seed: int, rows: int = ROWS) -> Frame:
    """One window of what was served: contexts of those who came."""
    rng = np.random.default_rng(seed)
    who = Visitors(people).draw(rng, 2 * rows / people.visits_a_minute)[:rows]
    columns = {key: pa.array(np.array(people.words[key])[codes[who]]) for key, codes in people.context.items()}
    return Frame(pa.table({**columns, "price": rng.lognormal(3, 1, len(who))}))


class Loop:
    """A home that is played: who comes, which model serves, and what each was trained on."""

    def __init__(self) -> None:
        self.before = population(20_000, 1)
        self.after = drifted(self.before, "country", "DE", 2.0, 1)
        self.references = {"streamrec-ranking/1": frame(self.before, 1, 20_000)}
        self.commands: list[str] = []
        self.ended: list[str] = []
        self.trained = 1
        self.world = World(self.checked)
        self.world.schema = SCHEMA.model_copy(update={"retraining": POLICY})

    @property
    def people(self) -> Population:
        return self.before if self.world.now_us < minute(60) else self.after

    @property
    def model(self) -> str:
        return self.world.live.rankers[self.world.live.champion]

    def checked(self, job: Job) -> Sequence[Signal]:
        if job.check == "retrain":
            self.retrain()
        if job.check != "drift":
            return []
        now = frame(self.people, job.at_us % 1_000_003)
        found = compare(
            self.references[self.model], now, engine=choose("scipy"), now_us=job.at_us, ask=Question(alpha=0.001)
        )
        moved = [name for name, feature in found.features.items() if feature.said.drift == "drift"]
        words = {"drift": "breach", "none": "ok"}
        verdict = words.get(found.verdict, "inconclusive")
        cause = ", ".join(moved) or found.why or "as in training"
        return [Signal("drift.severity", self.model, verdict, job.at_us, float(len(moved)), 0.0, cause=cause)]

    def retrain(self) -> None:
        """`monitor retrain-check --act`, in process."""
        world = self.world
        runs = history.runs_of(world.documents)
        signals = state_from(world.documents.read(DOCUMENT)[1]).signals
        ruling = decide(POLICY, signals, runs, world.now_us, data=Data(5_000, 50_000))
        if ruling.answer == "yes":
            act(
                world.documents, ruling, POLICY, Path("home"), Path("data"), cli=self.cli, clock_us=lambda: world.now_us
            )

    def cli(self, words: Sequence[str]) -> dict[str, Any]:
        self.commands.append(words[0])
        if words[0] == "train":
            self.trained += 1
            self.references[f"streamrec-ranking/{self.trained}"] = frame(self.people, 2, 20_000)
            kinds = ("retrieval", "ranking", "fallback")
            return {"run_id": "r", "models": {k: f"models:/streamrec-{k}/{self.trained}" for k in kinds}}
        if words[0] == "release":
            outcome = Simulation("better", 0, population(50_000, 0)).run()
            self.ended.append(outcome.end)
            if outcome.end == "promoted":
                self.world.live = Live(("streamrec:b",), "", {"streamrec:b": f"streamrec-ranking/{self.trained}"})
        return {"tag": "streamrec:b", "release": "r-1"}


def test_drift_alert_training_challenger_release_recovery_without_a_hand() -> None:
    loop = Loop()
    loop.world.minutes(59, step_s=60)
    assert loop.world.kinds == []  # an hour without drift: nothing is raised, nothing is trained
    assert loop.commands == []
    loop.world.minutes(120, step_s=60)
    assert loop.commands == ["train", "build", "release"]  # once, though drift was seen many times
    assert loop.ended == ["promoted"]
    assert loop.model == "streamrec-ranking/2"
    told = loop.world.channel.told
    assert [m.kind for m in told] == ["raised", "recovered"]
    assert told[0].alert == told[1].alert
    assert "country" in told[0].text
    (run,) = history.runs_of(loop.world.documents)
    assert run["state"] == "done"
    assert "drift.severity" in run["why"]
