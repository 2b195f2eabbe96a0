"""`/v1/openapi.json` of the gateway: a Bento's, and what the gateway adds to it."""

import functools
from typing import Any

import msgspec

from bentos.gateway.readiness import GatewayReadiness
from bentos.recommender import openapi as bento

KEYED = ("/v1/recommendations", "/v1/events")
PASS = {
    "name": "x-streamrec-pass",
    "in": "header",
    "required": False,
    "schema": {"type": "string"},
    "description": "A tester's signed pass: forces a variant, arms or flags. Such requests are no evidence.",
}


@functools.cache
def document() -> bytes:
    """The OpenAPI 3.1 document as JSON."""
    spec: dict[str, Any] = msgspec.json.decode(bento.document())
    (schema,), components = msgspec.json.schema_components(
        [GatewayReadiness], ref_template="#/components/schemas/{name}"
    )
    spec["components"]["schemas"] |= components
    spec["components"]["securitySchemes"]["key"] = {"type": "http", "scheme": "bearer"}
    for path in KEYED:
        post = spec["paths"][path]["post"]
        post["security"] = [{}, {"key": []}]  # a key only where the routing table names consumers
        for status, why in (("401", "No key."), ("403", "Not a consumer's key, or not a good pass.")):
            post["responses"][status] = {**post["responses"]["400"], "description": why}
    spec["paths"][KEYED[0]]["post"]["parameters"].append(PASS)
    for status in ("200", "503"):
        spec["paths"]["/readyz"]["get"]["responses"][status]["content"]["application/json"]["schema"] = schema
    return msgspec.json.encode(spec)
