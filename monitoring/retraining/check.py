"""`monitor retrain-check`: the rules over the watch's last signals; what there is to learn, when one asks for it."""

from datetime import UTC, datetime
from pathlib import Path

from contracts.errors import StreamRecError
from contracts.settings import Settings
from monitoring.retraining import history
from monitoring.retraining.act import Cli, export
from monitoring.retraining.decide import Ruling, decide
from monitoring.watch.schema import Retraining
from monitoring.watch.state import DOCUMENT, state_from
from monitoring.watch.watch import Live
from registry.control.documents import Documents
from registry.models import Registry


def ask(
    store: Documents,
    settings: Settings,
    policy: Retraining,
    live: Live,
    *,
    now_us: int,
    cli: Cli,
    exports: Path,
    data: Path | None = None,
) -> tuple[Ruling, Path | None]:
    """The answer, and the data set to learn from; None where nobody asked for one.

    exports: folder of this question alone. data: in place of an export.

    Raises:
        Unreachable: the control database does not answer.
    """
    known = [s for s in state_from(store.read(DOCUMENT)[1]).signals if s.model in live.names(live.champion)]
    runs = history.runs_of(store)
    if not live.champion:
        return Ruling("inconclusive", None, "nobody serves: there is no champion"), None
    first = decide(policy, known, runs, now_us, release_under_way=live.release)
    if first.answer != "yes" or first.action is None:
        return first, None
    if data is not None:
        return first, data
    since = _learned_until(live, settings) if first.action == "train" else None
    folder, facts = export(exports, policy, since, cli)
    return decide(policy, known, runs, now_us, release_under_way=live.release, data=facts), folder


def _learned_until(live: Live, settings: Settings) -> str | None:
    """When the champion's ranker was registered, as an ISO moment; None: everything is new."""
    try:
        name = live.rankers[live.champion]
        created_us = Registry.open(settings).resolve(f"models:/{name}").created_us
    except (KeyError, StreamRecError):
        return None
    return datetime.fromtimestamp(created_us / 1e6, UTC).isoformat()
