"""How the processes of `up` that serve nothing run: until they are told to end, with an exit code for who watches."""

import contextlib
import logging
import signal
import sys
import threading
from collections.abc import Callable, Iterator

from contracts.errors import StreamRecError
from contracts.settings import Settings, load_settings


def supervised(
    run: Callable[[Settings, threading.Event], None], log: logging.Logger, what: Callable[[Settings], str]
) -> int:
    """`run` until a signal sets its event; the exit code. what: the process in its first line of the log."""
    logging.basicConfig(
        level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(message)s", force=True
    )
    try:
        settings = load_settings()
        with _stopped_by_signals() as stop:
            log.info("%s", what(settings))
            run(settings, stop)
            log.info("ended")
    except StreamRecError as error:
        log.error("%s", error.message)
        return error.exit_code
    return 0


@contextlib.contextmanager
def _stopped_by_signals() -> Iterator[threading.Event]:
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: stop.set())
    yield stop
