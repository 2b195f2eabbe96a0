"""A controller with everything round it in memory, and a clock that only moves when told to."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from contracts.measurements import ArmCount, Measured, Snapshot
from contracts.routing import Target
from registry.control.memory import MemoryStore
from registry.control.store import Actor
from registry.controller import Controller
from registry.drivers.fake import FakeDriver
from registry.readiness import AllReady
from registry.reconcile import NoAliases
from registry.releases import machine
from registry.releases.invariants import invariants
from registry.releases.policy import Metric, Policy, Step
from registry.releases.routing import MemoryWriter
from registry.releases.values import Command, ControlState, PolicyText, Release, Start
from registry.rounds import Tick

SECOND = 1_000_000
BEGIN_US = 1_700_000_000 * SECOND
ALICE = Actor("alice", "admin")
OLD, NEW = "streamrec:old", "streamrec:new"

POLICY = Policy(
    name="short",
    version="1",
    metrics=(Metric(name="errors", kind="error_rate", direction="lower", critical=True, limit=0.01),),
    steps=(
        Step(kind="shadow", weight=100, metrics=("errors",), least_minutes=1, least_samples=100),
        Step(kind="canary", weight=5, metrics=("errors",), least_minutes=1, least_samples=100),
        Step(kind="canary", weight=50, metrics=("errors",), least_minutes=1, least_samples=100),
    ),
    warm_hours=0.1,
    evidence="any",
)
TEXT = PolicyText(name="short", version="1", sha256="0" * 64, text="")


def good(release: Release, now_us: int) -> Snapshot:
    """10,000 requests of 5,000 users in each arm, and none failed."""
    return measured(release, now_us, 0.0, (0.0, 0.001))


def bad(release: Release, now_us: int) -> Snapshot:
    """Half of them failed."""
    return measured(release, now_us, 0.5, (0.45, 0.55))


def measured(release: Release, now_us: int, value: float, interval: tuple[float, float]) -> Snapshot:
    arm = ArmCount(units=5000, requests=10_000, rungs={"full": 10_000})
    errors = Measured(name="errors", n=5000, n_control=5000, samples=10_000, value=value, value_ci=interval)
    return Snapshot(
        release=release.id,
        step=release.step,
        taken_us=now_us,
        since_us=release.since_us,
        arms={"candidate": arm, "control": arm, "shadow": arm, "champion": arm},
        metrics={"errors": errors},
        srm_p=0.5,
        rung_mix_p=0.5,
    )


class Died(BaseException):
    """`kill -9`, as far as one process can play it: nothing of ours may catch it."""


class Mortal:
    """Passes calls on, until the one at which it dies: before it is made, or after."""

    def __init__(self, inner: Any, fate: "Fate") -> None:
        self._inner, self._fate = inner, fate

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        return self._fate.watch(f"{type(self._inner).__name__}.{name}", found) if callable(found) else found

    def __call__(self, *args: Any) -> Any:
        return self._fate.watch("evidence", self._inner)(*args)


@dataclass
class Fate:
    """dies_at: number of the call, and whether after it. calls: their names so far."""

    dies_at: tuple[int, bool] | None = None
    calls: list[str] = field(default_factory=list)

    def watch(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def watched(*args: Any, **kwargs: Any) -> Any:
            self.calls.append(name)
            if self.dies_at == (len(self.calls), False):
                raise Died(f"before {name}")
            result = call(*args, **kwargs)
            if self.dies_at == (len(self.calls), True):
                raise Died(f"after {name}")
            return result

        return watched


class World:
    def __init__(self) -> None:
        self.now_us = BEGIN_US
        self.store = MemoryStore()
        self.driver = FakeDriver()
        self.probe = AllReady()
        self.evidence: Callable[[Release, int], Snapshot | None] = good
        self.writer = MemoryWriter()
        self.aliases = NoAliases()
        self.fate = Fate()
        self.starts = 0
        self.controller = self.new_controller()

    def new_controller(self, holder: str | None = None, **settings: Any) -> Controller:
        self.starts += 1
        return Controller(
            Mortal(self.store, self.fate),
            Mortal(self.driver, self.fate),
            Mortal(self.probe, self.fate),
            lambda release, now_us: Mortal(self.evidence, self.fate)(release, now_us),
            Mortal(self.writer, self.fate),
            Mortal(self.aliases, self.fate),
            clock_us=lambda: self.now_us,
            holder=holder or f"controller-{self.starts}",
            **settings,
        )

    @property
    def state(self) -> ControlState:
        return self.store.load()

    @property
    def release(self) -> Release:
        found = self.state.release
        assert found is not None
        return found

    def command(self, command: Command) -> ControlState:
        """As the command line does it."""
        before = self.store.load()
        after = machine.apply(before, command, self.now_us)
        subject = after.release.id if after.release else "-"
        action = f"release.{command.kind}"
        return self.store.commit(
            before, after, actor=ALICE, action=action, subject=subject, detail={"reason": "asked"}, now_us=self.now_us
        )

    def start(self, bento: str, id_: str, policy: Policy = POLICY, **more: Any) -> None:
        self.command(Start(id=id_, candidate=Target(bento=bento), policy_text=TEXT, policy=policy, **more))

    def tick(self, seconds: float = 0.25) -> Tick:
        self.now_us += int(seconds * SECOND)
        return self.controller.tick()

    def until(self, condition: Callable[[], object], seconds: float = 3600) -> None:
        """Tick until it holds. A controller that dies is started again at once, under another name."""
        end_us = self.now_us + int(seconds * SECOND)
        while not condition():
            assert self.now_us < end_us, f"not within {seconds} s; last: {self.writer.last()}"
            assert invariants(self.state) == []
            try:
                self.tick(1.0)
            except Died:
                self.fate.dies_at = None
                self.controller = self.new_controller()

    def first_champion(self) -> None:
        self.start(OLD, "first")
        self.until(lambda: self.routed() == OLD, 60)

    def routed(self) -> str | None:
        table = self.writer.last()
        return table.champion.bento if table and table.champion else None

    def weight(self) -> float:
        table = self.writer.last()
        return table.release.weight if table and table.release else 0.0

    def steps(self) -> list[tuple[str, str]]:
        """(action, subject) of the audit, without looks that changed nothing."""
        return [(e.action, e.subject) for e in self.store.history() if e.action != "release.note"]
