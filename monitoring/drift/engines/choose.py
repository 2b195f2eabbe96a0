"""Which engine: the one that was asked for, else alibi-detect where it is installed, else SciPy."""

from importlib.util import find_spec

from contracts.errors import UsageError
from monitoring.drift.base import Engine
from monitoring.drift.engines.alibi import Alibi
from monitoring.drift.engines.scipy import Scipy

ENGINES: dict[str, type[Engine]] = {"alibi": Alibi, "scipy": Scipy}


def choose(name: str | None = None) -> Engine:
    """Raises UsageError: no such engine, or alibi-detect was asked for and is not installed."""
    installed = find_spec("alibi_detect") is not None  # looked up, not imported
    name = name or ("alibi" if installed else "scipy")
    if name not in ENGINES:
        raise UsageError(
            f"engine {name!r}: there are {', '.join(ENGINES)}", next_command="streamrec monitor drift --help"
        )
    if name == "alibi" and not installed:
        raise UsageError(
            "engine alibi: alibi-detect is not installed", next_command="pip install -c constraints.txt '.[monitor]'"
        )
    return ENGINES[name]()
