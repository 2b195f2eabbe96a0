"""The gateway as a BentoML service without models. Its HTTP interface is /v1/openapi.json."""

import os
from pathlib import Path
from typing import Any

import bentoml
from _bentoml_sdk import Service
from bentoml._internal.context import server_context

from bentos.gateway.entry import GatewayEntry
from bentos.gateway.routing import SignedRouting
from bentos.gateway.runtime import GatewayRuntime
from bentos.recommender.http import ASGIApp
from contracts.parent import end_with_parent
from contracts.settings import Settings, load_settings

# The entry measures and logs; BentoML's own log line and counters would cost more than the request.
QUIET: dict[str, Any] = {"metrics": {"enabled": False}, "logging": {"access": {"enabled": False}}}


def gateway_settings() -> Settings:
    """BentoML changes the working directory to the Bento's sources before it imports this file: a relative `home` is
    meant from where the command was typed.
    """
    where = Path(os.environ.get("PWD") or ".")
    settings = load_settings(file=where / os.environ.get("STREAMREC_CONFIG", "streamrec.toml"))
    return settings.model_copy(update={"home": where / settings.home})


class GatewayService(Service):
    """A BentoML service whose application is wrapped in the entry; `bentoml build` and `bentoml serve` keep it."""

    runtime: GatewayRuntime | None = None

    def to_asgi(self, is_main: bool = True) -> ASGIApp:
        return GatewayEntry(super().to_asgi(is_main), lambda: self.runtime)


@bentoml.service(name="Gateway", service_class=GatewayService, **QUIET)
class Gateway:
    """Assignment, failover, shadow traffic and consumer keys in front of the live Bentos."""

    def __init__(self) -> None:
        if server_context.worker_index is not None:  # under `bentoml serve` a killed arbiter would leave its workers
            end_with_parent(os.getppid())
        settings = gateway_settings()
        service: Any = Gateway
        self.runtime = service.runtime = GatewayRuntime(settings, SignedRouting(settings.home))

    @bentoml.on_startup
    async def start(self) -> None:
        await self.runtime.start()

    @bentoml.on_shutdown
    async def stop(self) -> None:
        await self.runtime.close()
