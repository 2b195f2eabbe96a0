"""Settings: `streamrec.toml`, then `STREAMREC_*` variables, then flags. Unknown keys are errors."""

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from contracts.budgets import Budgets
from contracts.errors import UsageError
from contracts.serving import Aim

PREFIX = "STREAMREC_"
# Variables that belong to scripts around the project, not to its settings.
NOT_SETTINGS = frozenset({"STREAMREC_CONFIG", "STREAMREC_SHARED_DATA"})


class Settings(BaseModel):
    """Everything an operator may set. One flat namespace: `home` is `STREAMREC_HOME` and `home = …` in the file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    home: Path = Field(Path(".streamrec"), description="where the embedded default writes everything")
    host: str = Field("127.0.0.1", description="address that servers listen on")
    port: int = Field(3000, ge=0, le=65535, description="port of `serve`; 0 takes a free one")
    topology: Literal["colocated", "distributed"] = Field(
        "colocated", description="all in one process, or a process for each runner"
    )
    online_store: str = Field("sqlite", description="`sqlite`, `memory` or a `redis://` URL")
    online_store_replica: str | None = Field(
        None, description="`redis://` URL of a replica that slow reads are asked of too", repr=False
    )
    breaker_open_s: float = Field(
        30.0, gt=0, description="how long a part is left alone after 5 failures, until 3 probes ask it again"
    )
    event_log: str = Field("sqlite", description="`sqlite` or a `redis://` URL")
    event_log_days: int = Field(30, ge=8, description="days that events stay in a Redis event log")
    rules: Path | None = Field(None, description="rules document; the one in the Bento when unset")
    quality: Path | None = Field(None, description="limits of slices, fairness and calibration; defaults when unset")
    framing: Path | None = Field(None, description="target, horizon, inputs, costs and latency class of each model")
    deadline_ms: float = Field(150.0, gt=0, le=60_000, description="time one recommendation may take")
    gateway_budget_ms: float = Field(5.0, ge=0, description="of the deadline: what happens before the first stage")
    features_budget_ms: float = Field(15.0, gt=0, description="of the deadline: the wait for the online store")
    retrieval_budget_ms: float = Field(30.0, gt=0, description="of the deadline: any one source; they count once")
    ranking_budget_ms: float = Field(50.0, gt=0, description="of the deadline: the rankers")
    reranking_budget_ms: float = Field(20.0, ge=0, description="of the deadline: re-ranking")
    assembly_budget_ms: float = Field(5.0, gt=0, description="of the deadline: the answer, also of a lower rung")
    log_contexts: float = Field(1.0, ge=0, le=1, description="share of requests whose context record is kept")
    log_rows: float = Field(
        0.25, ge=0, le=1, description="share of the context records with what the ranker read of the first 20 items"
    )
    log_candidates: float = Field(
        0.01, ge=0, le=1, description="share of the context records with all candidates and their scores"
    )
    states_mb: int = Field(
        1024, ge=0, description="room for past item counts, which a replay needs; the oldest go, 0 keeps none"
    )
    skew_mean: float = Field(
        0.5,
        gt=0,
        description="`monitor skew`: shift of a mean, in training standard deviations, from which on it is skew",
    )
    skew_deviation: float = Field(
        0.5,
        gt=0,
        lt=1,
        description="`monitor skew`: ratio of the smaller to the larger deviation, below which it is skew",
    )
    skew_missing: float = Field(
        0.05, gt=0, lt=1, description="`monitor skew`: difference of the shares of rows without a value, likewise"
    )
    skew_rows: float = Field(
        0.01, ge=0, lt=1, description="`monitor skew`: share of logged values that may differ from the offline join"
    )
    user_keys: Path | None = Field(
        None, description="file of the keys that hide users' ids in the service's own logs; unset: ids as they are"
    )
    keep_exposures_d: float = Field(400.0, ge=1, description="days that exposures are kept; then `monitor retain`")
    keep_contexts_d: float = Field(90.0, ge=1, description="days that context records are kept, likewise")
    keep_attempts_d: float = Field(90.0, ge=1, description="days that attempts are kept, likewise")
    keep_events_d: float = Field(
        400.0, ge=9, description="days that events are kept in `events.db`, likewise; Redis trims by `event_log_days`"
    )
    reports_mb: int = Field(
        512,
        ge=0,
        description="room for the pages of drifts in `reports/`; the oldest go, the newest stays; 0 makes none",
    )
    aim: Aim = Field("full", description="rung that requests start at; a lower one spares the rankers")
    patience_ms: float = Field(
        100.0, gt=0, description="wait for the compute thread from which on cheaper rungs are given"
    )
    thin_below: float = Field(
        0.5, ge=0, le=1, description="under overload, no deep ranking for a user with a smaller share of features"
    )
    device: Literal["cpu", "gpu"] = Field("cpu", description="where the ranker runs; the CPU when there is no GPU")
    bundles: Path | None = Field(None, description="folder with retrieval/, ranking/, fallback/ in place of a Bento's")
    log_format: Literal["text", "json"] = Field("text", description="how the lines of the log are written")
    traces: str = Field(
        "off",
        pattern=r"^(off|log|https?://\S+)$",
        description="OpenTelemetry spans: `off`, `log`, or the URL of an OTLP collector",
    )
    trace_share: float = Field(
        0.01, ge=0, le=1, description="share of requests without a `traceparent` that are traced"
    )
    token: str | None = Field(
        None, description="bearer token for GET /v1/requests/{id} and the addresses under /v1/items", repr=False
    )
    item_counts_s: float = Field(
        30.0, gt=0, le=3600, description="seconds between looks at what was done with each item lately"
    )
    live_items: int = Field(100_000, ge=0, le=10_000_000, description="items that may be put under /v1/items")

    front_key: str | None = Field(None, description="shared by a gateway and its Bentos; `up` makes one", repr=False)
    gateway_port: int = Field(3000, ge=0, le=65535, description="port of the gateway under `up`; 0 takes a free one")
    gateway_processes: int = Field(2, ge=1, le=256, description="gateway processes under `up`")
    workers: int = Field(1, ge=1, le=256, description="worker processes of each live Bento under `up`, and of an image")
    max_connections: int = Field(
        10_000, ge=1, description="open connections of one worker; then the one idle for longest is closed"
    )
    driver: Literal["local", "static"] = Field("local", description="who runs the Bentos: `up`, or someone else")
    upstreams: dict[str, list[str]] = Field({}, description="for `static`: Bento tag → its URLs")
    control_port: int = Field(
        3001, ge=0, le=65535, description="port of the controller on 127.0.0.1; 0 takes a free one"
    )
    watch_port: int = Field(
        3002, ge=0, le=65535, description="port of the watch's /metrics on 127.0.0.1; 0 takes a free one"
    )
    retrain: bool = Field(True, description="whether the watch starts the trainings that its policy asks for")
    alert_webhook: str | None = Field(
        None, pattern=r"^https?://\S+$", description="URL that alerts are posted to, signed", repr=False
    )
    alert_secret: str | None = Field(None, description="what the posted alerts are signed with (HMAC)", repr=False)
    control_db: str | None = Field(None, description="SQLAlchemy URL; SQLite under `home` when unset", repr=False)
    operator_token: str | None = Field(None, description="token of the operator at the command line", repr=False)

    @property
    def budgets(self) -> Budgets:
        return Budgets(
            self.gateway_budget_ms,
            self.features_budget_ms,
            self.retrieval_budget_ms,
            self.ranking_budget_ms,
            self.reranking_budget_ms,
            self.assembly_budget_ms,
        )

    @model_validator(mode="after")
    def _budgets_fit(self) -> "Settings":
        self.budgets.must_fit(self.deadline_ms)
        return self

    @property
    def shares_a_catalogue(self) -> bool:
        """Whether the live catalogue is that of all machines with this online store."""
        return self.online_store not in ("sqlite", "memory")

    @property
    def control_uri(self) -> str:
        return self.control_db or f"sqlite:///{self.home.resolve() / 'control' / 'control.db'}"

    @property
    def mlflow_uri(self) -> str:
        """`MLFLOW_TRACKING_URI` when set, else SQLite under `home`."""
        return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{self.home.resolve() / 'mlflow.db'}"


def load_settings(
    flags: Mapping[str, Any] | None = None,
    *,
    environ: Mapping[str, str] = os.environ,
    file: Path | None = None,
) -> Settings:
    """Merge file, environment and flags (None means "not given").

    Raises:
        UsageError: an unknown key or a value of the wrong type, naming where it came from; a home that is a file.
    """
    path = file or Path(environ.get("STREAMREC_CONFIG", "streamrec.toml"))
    values: dict[str, Any] = {}
    if path.is_dir():
        raise UsageError(f"{path} is a folder; STREAMREC_CONFIG names a TOML file")
    if path.exists():
        try:
            values |= tomllib.loads(path.read_text())
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise UsageError(f"{path} is not valid TOML: {error}") from error
    values |= {
        key.removeprefix(PREFIX).lower(): value
        for key, value in environ.items()
        if key.startswith(PREFIX) and key not in NOT_SETTINGS
    }
    values |= {key: value for key, value in (flags or {}).items() if value is not None}
    try:
        settings = Settings.model_validate(values)
    except ValidationError as error:
        problems = "; ".join(f"`{'.'.join(map(str, e['loc']))}`: {e['msg']}" for e in error.errors())
        raise UsageError(f"settings ({path}, {PREFIX}* and flags): {problems}") from error
    if settings.home.exists() and not settings.home.is_dir():
        raise UsageError(f"`home` is {settings.home}, which is not a folder")
    return settings
