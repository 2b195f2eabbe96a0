"""`/v1/openapi.json`, made from the very types that decode and encode: it cannot fall behind them."""

import functools
from typing import Any

import msgspec

from bentos.recommender.health import Readiness
from contracts import front
from contracts.exposures import ContextRecord
from contracts.front import MOST_MS
from contracts.http import (
    EventIn,
    EventsAccepted,
    FlagIn,
    ItemIn,
    ItemsChanged,
    Problem,
    RecommendationRequest,
    RecommendationResponse,
)

PROBLEMS = {
    "400": "The body breaks the schema; `field` names where.",
    "401": "No bearer token.",
    "403": "Not the token of this service.",
    "404": "No such address, no such request, or its context was not kept.",
    "405": "Another method.",
    "408": "The body did not come in time.",
    "409": "More items than may be put live: build a Bento that knows them.",
    "413": "A body over 1 MiB.",
    "415": "A compressed body.",
    "429": "Full: send it again after `Retry-After` seconds.",
    "431": "A header over 16 KiB, or of over 100 fields.",
    "500": "A fault of the service; its log has the cause.",
    "503": "Nothing can be served now.",
}
TYPES = (
    RecommendationRequest,
    RecommendationResponse,
    EventIn,
    EventsAccepted,
    ItemIn,
    FlagIn,
    ItemsChanged,
    ContextRecord,
    Problem,
    Readiness,
)
DEADLINE: dict[str, Any] = {
    "name": front.DEADLINE_MS.decode(),
    "in": "header",
    "description": "Milliseconds that the caller waits. It can only shorten the service's own deadline.",
    "schema": {"type": "number", "exclusiveMinimum": 0, "maximum": MOST_MS},
}


@functools.cache
def document() -> bytes:
    """The OpenAPI 3.1 document as JSON."""
    schemas, components = msgspec.json.schema_components(TYPES, ref_template="#/components/schemas/{name}")
    by_type = dict(zip(TYPES, schemas, strict=True))
    one_to_1000 = {"type": "array", "items": by_type[EventIn], "minItems": 1, "maxItems": 1000}
    wrapped = {"type": "object", "properties": {"events": one_to_1000}, "required": ["events"]}
    events = {"oneOf": [one_to_1000, by_type[EventIn], wrapped]}
    items = {"type": "array", "items": by_type[ItemIn], "minItems": 1, "maxItems": 1000}
    one_item = [
        {
            "name": "item_id",
            "in": "path",
            "required": True,
            "schema": {"type": "string", "minLength": 1, "maxLength": 256},
        }
    ]
    retry = {"Retry-After": {"description": "Seconds.", "schema": {"type": "integer"}}}
    request_id = {"X-Request-ID": {"description": "UUIDv7.", "schema": {"type": "string", "format": "uuid"}}}

    def problems(*statuses: str) -> dict[str, Any]:
        return {
            status: {
                "description": PROBLEMS[status],
                "headers": {**request_id, **(retry if status in ("429", "503") else {})},
                "content": {"application/problem+json": {"schema": by_type[Problem]}},
            }
            for status in statuses
        }

    def json_answer(description: str, schema: Any) -> dict[str, Any]:
        return {
            "description": description,
            "headers": request_id,
            "content": {"application/json": {"schema": schema}},
        }

    def json_body(schema: Any) -> dict[str, Any]:
        return {"required": True, "content": {"application/json": {"schema": schema}}}

    spec = {
        "openapi": "3.1.0",
        "info": {
            "title": "StreamRec",
            "version": "1",
            "description": "Personal recommendations. An unknown user is not an error.",
        },
        "paths": {
            "/v1/recommendations": {
                "post": {
                    "operationId": "recommend",
                    "summary": "A slate for a user, from the best rung that works; `degradation` names it.",
                    "parameters": [DEADLINE],
                    "requestBody": json_body(by_type[RecommendationRequest]),
                    "responses": {
                        "200": json_answer("The slate.", by_type[RecommendationResponse]),
                        **problems("400", "405", "408", "413", "415", "429", "431", "500", "503"),
                    },
                }
            },
            "/v1/events": {
                "post": {
                    "operationId": "sendEvents",
                    "summary": "1 to 1,000 events. 202 only after they are durable; the same `event_id` counts once.",
                    "requestBody": json_body(events),
                    "responses": {
                        "202": json_answer("They are durable.", by_type[EventsAccepted]),
                        **problems("400", "405", "408", "413", "415", "429", "431", "500", "503"),
                    },
                }
            },
            "/v1/items": {
                "put": {
                    "operationId": "putItems",
                    "summary": "1 to 1,000 items as they are from now on. 200 only after they are durable; a repeat"
                    " changes nothing.",
                    "security": [{"token": []}],
                    "requestBody": json_body(
                        {"oneOf": [items, {"type": "object", "required": ["items"], "properties": {"items": items}}]}
                    ),
                    "responses": {
                        "200": json_answer("They are durable.", by_type[ItemsChanged]),
                        **problems("400", "401", "403", "405", "408", "409", "413", "415", "429", "431", "500", "503"),
                    },
                }
            },
            "/v1/items/{item_id}": {
                "delete": {
                    "operationId": "removeItem",
                    "summary": "Not shown any more, on any rung, until it is put again.",
                    "security": [{"token": []}],
                    "parameters": one_item,
                    "responses": {
                        "200": json_answer("It is durable.", by_type[ItemsChanged]),
                        **problems("400", "401", "403", "404", "405", "408", "413", "415", "429", "431", "500", "503"),
                    },
                }
            },
            "/v1/items/{item_id}/flag": {
                "post": {
                    "operationId": "flagItem",
                    "summary": "Not shown while it is flagged; `flagged: false` takes the flag back.",
                    "security": [{"token": []}],
                    "parameters": one_item,
                    "requestBody": {**json_body(by_type[FlagIn]), "required": False},
                    "responses": {
                        "200": json_answer("It is durable.", by_type[ItemsChanged]),
                        **problems("400", "401", "403", "404", "405", "408", "413", "415", "429", "431", "500", "503"),
                    },
                }
            },
            "/v1/requests/{request_id}": {
                "get": {
                    "operationId": "getRequest",
                    "summary": "The logged context of one request.",
                    "security": [{"token": []}],
                    "parameters": [
                        {
                            "name": "request_id",
                            "in": "path",
                            "required": True,
                            "schema": {"type": "string", "format": "uuid"},
                        }
                    ],
                    "responses": {
                        "200": json_answer("What the answer was made of.", by_type[ContextRecord]),
                        **problems("400", "401", "403", "404", "405", "431", "500", "503"),
                    },
                }
            },
            "/v1/openapi.json": {
                "get": {"operationId": "openapi", "responses": {"200": {"description": "This document."}}}
            },
            "/livez": {"get": {"operationId": "livez", "responses": {"200": {"description": "The process lives."}}}},
            "/readyz": {
                "get": {
                    "operationId": "readyz",
                    "responses": {
                        "200": json_answer("It can serve, perhaps degraded.", by_type[Readiness]),
                        "503": json_answer("Draining, or nothing can be served.", by_type[Readiness]),
                    },
                }
            },
            "/metrics": {
                "get": {
                    "operationId": "metrics",
                    "responses": {"200": {"description": "Prometheus text.", "content": {"text/plain": {}}}},
                }
            },
        },
        "components": {"schemas": components, "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}}},
    }
    return msgspec.json.encode(spec)
