"""What an image of a Bento starts (deploy/entrypoint.sh): `python -m bentos.recommender.image FOLDER`.

The processes of `streamrec serve`, with all that they promise: it ends without losing a request, and what dies is
started again. Settings are the container's variables; a flag comes before them.
"""

import argparse
import logging
from pathlib import Path

from bentos.recommender import logs
from bentos.recommender.supervisor import Supervisor, listen, paths_from_here, until_told
from contracts.errors import StreamRecError
from contracts.settings import load_settings

log = logging.getLogger("streamrec.serving")


def main() -> None:
    arguments = _arguments()
    try:
        _serve(arguments)
    except StreamRecError as error:
        log.error("%s", error.message)
        raise SystemExit(error.exit_code) from error


def _serve(arguments: argparse.Namespace) -> None:
    given = {name: getattr(arguments, name) for name in ("host", "port", "workers")}
    settings = load_settings(given)
    logs.configure(settings.log_format, (settings.token, settings.front_key, settings.operator_token))
    supervisor = Supervisor(
        ["--bento", str(arguments.bento.resolve())],
        listen(settings.host, settings.port),
        topology=settings.topology,
        workers=settings.workers,
        run=settings.home.resolve() / "run",
        code=arguments.bento.resolve() / "src",
        env=paths_from_here(settings),
        drain_s=arguments.drain_s,
    )
    with until_told(supervisor, arguments.drain_s):
        supervisor.start()
        ready = supervisor.wait_ready()
        log.info("%s answers on %s (%s)", ready["bento"], supervisor.url, ready["status"])
        supervisor.watch()


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bentos.recommender.image", description=__doc__)
    parser.add_argument("bento", type=Path, help="folder of the Bento")
    parser.add_argument("--host", help="address to listen on")
    parser.add_argument("--port", type=int, help="port to listen on")
    parser.add_argument("--workers", type=int, help="entry processes; one a core is enough")
    parser.add_argument(
        "--drain-s", type=float, default=1.0, help="how long /readyz is false before the listening ends"
    )
    return parser.parse_args()


if __name__ == "__main__":
    main()
