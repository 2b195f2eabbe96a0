"""The one place that opens MLflow: SQLite under `home` by default, a server by `MLFLOW_TRACKING_URI`."""

import fcntl
import logging
import os
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from contracts import tracking
from contracts.errors import NotFound, StreamRecError, Unreachable
from contracts.settings import Settings

if TYPE_CHECKING:
    from mlflow import MlflowClient

EXPERIMENT = "streamrec"
# Standard output belongs to the one JSON document of `--json`, and progress to the commands.
_QUIET = {
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
}
_NOISY = ("alembic", "mlflow.store.db.utils", "mlflow.store.model_registry", "mlflow.tracking")


def connect(settings: Settings) -> "MlflowClient":
    """A client of the tracking store and the model registry, which are one.

    Raises:
        Unreachable: the server or the database does not answer.
    """
    tracking.off()
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    for name in _NOISY:
        logging.getLogger(name).setLevel(logging.WARNING)
    uri = settings.mlflow_uri
    if uri.startswith("http"):
        _ping(uri)
        # A server that goes away later must not hold a command for minutes.
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")
        with translated(f"MLflow at {uri}"):
            return _client(uri)
    settings.home.mkdir(parents=True, exist_ok=True)
    # Two first uses of a new SQLite file race in the migrations: ours wait for one another here; somebody else's
    # (an `mlflow ui` that starts at the same moment) are met by trying again.
    with locked(settings.home / "mlflow.lock"), translated(f"MLflow at {uri}"):
        for attempt in range(5):
            try:
                return _client(uri)
            except Exception:
                if attempt == 4:
                    raise
                time.sleep(0.2 * 2**attempt)
    raise AssertionError("unreachable")


def artifact_location(settings: Settings) -> str | None:
    """Where a new experiment keeps its files: under `home`, or where the server says (None)."""
    if settings.mlflow_uri.startswith("http"):
        return None
    return (settings.home.resolve() / "mlartifacts" / EXPERIMENT).as_uri()


@contextmanager
def translated(what: str) -> Iterator[None]:
    """MLflow's, SQLAlchemy's and the network's exceptions as ours."""
    import sqlalchemy.exc
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            raise NotFound(f"{what}: {error.message}", next_command="streamrec models list") from error
        if "API request to" in str(error) or error.error_code == "TEMPORARILY_UNAVAILABLE":
            raise Unreachable(f"{what} does not answer: {_first_line(error)}") from error
        raise StreamRecError(f"{what}: {_first_line(error)}") from error
    except (sqlalchemy.exc.SQLAlchemyError, ConnectionError) as error:
        raise Unreachable(f"{what} does not answer: {_first_line(error)}") from error


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an advisory lock on `path`; the kernel lets go of it when the process ends, however it ends."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _client(uri: str) -> "MlflowClient":
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=uri, registry_uri=uri)
    client.search_registered_models(max_results=1)  # opens the store: migrations run here, not in the first use
    client.search_experiments(max_results=1)
    return client


def _ping(uri: str) -> None:
    try:
        with urllib.request.urlopen(uri.rstrip("/") + "/health", timeout=5):  # noqa: S310 - http by the caller's check
            return
    except (urllib.error.URLError, OSError, ValueError) as error:
        if isinstance(error, urllib.error.HTTPError) and error.code in (401, 403, 404):
            return  # somebody answers; what it says is the client's business
        raise Unreachable(
            f"the MLflow server at {uri} does not answer: {_first_line(error)}",
            next_command="start it, or unset MLFLOW_TRACKING_URI to use the database under STREAMREC_HOME",
        ) from error


def _first_line(error: Any) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
