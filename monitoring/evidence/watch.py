"""Metrics of kind `watch`: what the watch said of the candidate (drift, skew, slices) as a guardrail of its release.

The value is how many of the signals are in breach; against a `limit` of 0 one is enough to fail. What the watch has not
looked at lately, or could not see, is a problem and so `inconclusive`: never a pass.
"""

from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from fnmatch import fnmatchcase

from contracts.errors import StreamRecError
from contracts.measurements import Measured
from contracts.settings import Settings
from monitoring.signals import Signal
from registry.releases.policy import Metric

OLD_US = 26 * 3_600_000_000

# A Bento → (what signals call it, the last signals of all).
Said = Callable[[str], tuple[Collection[str], Sequence[Signal]]]


def watched(metric: Metric, names: Collection[str], signals: Sequence[Signal], now_us: int) -> Measured:
    """names: of the candidate, as signals have it."""
    fitting = [
        s
        for s in signals
        if s.model in names and any(fnmatchcase(s.name, p) for p in metric.signals) and now_us - s.at <= OLD_US
    ]
    if not fitting:
        wanted = ", ".join(metric.signals)
        return Measured(name=metric.name, problem=f"the watch has not looked at {wanted} of the candidate yet")
    breaches = [s for s in fitting if s.verdict == "breach"]
    blind = [s for s in fitting if s.verdict == "inconclusive"]
    if blind and not breaches:
        return Measured(name=metric.name, n=len(fitting), problem=f"{blind[0].name}: {blind[0].cause}")
    count = float(len(breaches))
    words = ", ".join(s.name for s in breaches[:5]) or "none in breach"
    return Measured(
        name=metric.name,
        n=len(fitting),
        samples=len(fitting),
        value=count,
        value_ci=(count, count),
        convention=f"signals of the watch: {words}",
    )


def said_by_the_watch(settings: Settings) -> Said:
    """From the control database. Raises nothing of its own: the caller meets what the database raises."""
    from monitoring.watch.state import DOCUMENT, state_from
    from registry.bento_store import stored_bento
    from registry.control.documents import SqlDocuments
    from registry.control.sql import control_store
    from registry.lineage import pinned_uris

    documents = SqlDocuments(control_store(settings))

    def said(bento: str) -> tuple[Collection[str], Sequence[Signal]]:
        names = {bento}
        with suppress(StreamRecError):  # built elsewhere: signals of the tag alone
            names.add(pinned_uris(stored_bento(bento, settings.home))["ranking"].removeprefix("models:/"))
        try:
            return names, state_from(documents.read(DOCUMENT)[1]).signals
        except (KeyError, TypeError, ValueError):
            return names, ()

    return said
