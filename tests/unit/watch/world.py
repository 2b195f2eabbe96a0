"""A watch on a virtual clock: documents in memory, checks and channels that are played."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from contracts.errors import Unreachable
from monitoring.alerts.channels.base import Message
from monitoring.alerts.grouping import MINUTE_US
from monitoring.signals import Signal, Verdict
from monitoring.watch.running import RETRAIN, Finished, Job
from monitoring.watch.schema import Schema, Watched
from monitoring.watch.watch import Live, Tick, Watch
from registry.control.documents import Documents, MemoryDocuments

BEGIN_US = 1_767_225_600_000_000  # 2026-01-01
BENTO, RANKER = "streamrec:a", "streamrec-ranking/1"


def row(signal: str, check: str, **more: object) -> Watched:
    given = {"every_minutes": 5, "criticality": "ticket", "owner": "ranking", "runbook": "docs/runbooks/drift.md"}
    return Watched.model_validate({"signal": signal, "check": check, **given, **more})


SCHEMA = Schema(
    name="played",
    version="1",
    signals=(
        row("level.*", "levels", every_minutes=1, criticality="page", owner="serving"),
        row("drift.*", "drift"),
        row("run.check.*", "watch"),
    ),
)


def signal(name: str, verdict: Verdict, at_us: int, model: str = RANKER, **more: object) -> Signal:
    return Signal(name, model, verdict, at=at_us, cause=f"{name} is {verdict}", **more)  # type: ignore[arg-type]


@dataclass
class PlayedRunner:
    """A check ends in the round after its start, with what `says` gives; words are the reason of a crash."""

    says: Callable[[Job], Sequence[Signal] | str]
    running: list[Job] = field(default_factory=list)
    started: list[Job] = field(default_factory=list)

    def start(self, job: Job) -> bool:
        if self.busy(job.lane):
            return False
        self.running.append(job)
        self.started.append(job)
        return True

    def poll(self) -> list[Finished]:
        ended, self.running = self.running, []
        return [self._ended(job) for job in ended]

    def _ended(self, job: Job) -> Finished:
        found = self.says(job)
        if isinstance(found, str):
            return Finished(job, problem=found, cpu_s=0.1)
        return Finished(job, tuple(found), cpu_s=0.1)

    def busy(self, lane: str) -> bool:
        return any(job.lane == lane for job in self.running)

    def stop(self) -> None:
        self.running = []


@dataclass
class PlayedChannel:
    """Counts each key once, as a receiver must. down: it does not answer."""

    name: str = "played"
    told: list[Message] = field(default_factory=list)
    sends: int = 0
    down: bool = False

    def send(self, message: Message) -> None:
        if self.down:
            raise Unreachable("the receiver is away")
        self.sends += 1
        if message.key not in {m.key for m in self.told}:
            self.told.append(message)


@dataclass
class World:
    says: Callable[[Job], Sequence[Signal] | str]
    documents: Documents = field(default_factory=MemoryDocuments)
    channel: PlayedChannel = field(default_factory=PlayedChannel)
    schema: Schema = SCHEMA
    live: Live = field(default_factory=lambda: Live((BENTO,), "", {BENTO: RANKER}))
    now_us: int = BEGIN_US

    def __post_init__(self) -> None:
        self.runner = PlayedRunner(self.says)
        self.restart("first")

    def restart(self, holder: str) -> None:
        """As after a kill: what ran is gone, only the documents are left."""
        self.runner = PlayedRunner(self.says)
        self.watch = Watch(
            self.documents,
            lambda: self.live,
            lambda _: self.schema,
            self.runner,
            [self.channel],
            clock_us=lambda: self.now_us,
            holder=holder,
        )

    def minutes(self, n: float, step_s: float = 30) -> Tick:
        tick = self.watch.tick()
        for _ in range(int(n * 60 / step_s)):
            self.now_us += int(step_s * 1e6)
            tick = self.watch.tick()
        return tick

    @property
    def kinds(self) -> list[str]:
        return [m.kind for m in self.channel.told]

    @property
    def trainings(self) -> list[Job]:
        return [job for job in self.runner.started if job.check == RETRAIN]


def minute(n: float) -> int:
    return BEGIN_US + int(n * MINUTE_US)
