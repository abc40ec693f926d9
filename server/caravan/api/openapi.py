"""GET /openapi.json: the API in OpenAPI 3.1, as this server obeys it.

    schema.*           request bodies                   ┐
    answer_types       answers                          ├─> components ─┐
    caravan.errors     statuses with types and codes    ┘               ├─> the document
    OPERATIONS         routes                           ────────────────┘

What it says of bodies is what clients are meant to send. A field that is `null` counts as absent,
even one that this server does not know; limits between fields are left to the 400 that names them.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from typing import NamedTuple

import msgspec
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

import caravan
from caravan.api import answer_types as answers
from caravan.api.edge import MAX_REQUEST_ID_CHARACTERS
from caravan.api.openapi_schemas import COMPONENTS, Json, component_schemas
from caravan.api.pipeline import IGNORED_HEADER
from caravan.api.schema.chat import ChatBody
from caravan.api.schema.completion import CompletionBody
from caravan.api.schema.tokens import DetokenizeBody, TokenizeBody
from caravan.api.service import service_of
from caravan.errors import ApiError, InternalError, InvalidApiKey, StillLoading

JSON, EVENTS, TEXT = "application/json", "text/event-stream", "text/plain"
REQUEST_ID_HEADER = "x-request-id"

_KEY = "ApiKey"  # the security scheme
_POST_ERRORS = (400, 404, 413, 415, 503)
_IN_STREAM = (400, 500, 503)  # errors that come when the 200 is out


class Operation(NamedTuple):
    """A route with one of its methods."""

    method: str
    path: str
    name: str
    summary: str
    answer: type | None  # of a 200 in JSON; None: plain text, or with HEAD nothing
    errors: Sequence[int] = ()  # statuses, besides those that every route has
    body: type | None = None
    event: type | None = None  # of a 200 that is a stream
    parameter: str | None = None  # of the path
    public: bool = False


OPERATIONS = (
    Operation(
        "post",
        "/v1/chat/completions",
        "createChatCompletion",
        "An assistant's message, or several, for a conversation.",
        answers.ChatCompletion,
        _POST_ERRORS,
        ChatBody,
        answers.ChatChunk,
    ),
    Operation(
        "post",
        "/v1/completions",
        "createCompletion",
        "What follows a prompt, or each of several.",
        answers.Completion,
        _POST_ERRORS,
        CompletionBody,
        answers.CompletionChunk,
    ),
    Operation(
        "post",
        "/tokenize",
        "tokenize",
        "The tokens of a prompt, or of a conversation.",
        answers.Tokenized,
        _POST_ERRORS,
        TokenizeBody,
    ),
    Operation(
        "post",
        "/detokenize",
        "detokenize",
        "The text of tokens; special ones have none.",
        answers.Detokenized,
        _POST_ERRORS,
        DetokenizeBody,
    ),
    Operation(
        "get",
        "/v1/models",
        "listModels",
        "The one model that this server serves.",
        answers.ModelList,
        (503,),
    ),
    Operation(
        "get",
        "/v1/models/{model_id}",
        "retrieveModel",
        "A model by its id, which may have slashes.",
        answers.Model,
        (404, 503),
        parameter="model_id",
    ),
    Operation(
        "get",
        "/health",
        "getHealth",
        "Whether the engine is alive.",
        answers.Health,
        (503,),
        public=True,
    ),
    Operation(
        "head",
        "/health",
        "headHealth",
        "The same, by the status alone.",
        None,
        (503,),
        public=True,
    ),
    Operation(
        "get",
        "/ready",
        "getReadiness",
        "Whether the server takes requests; while it loads, how far it is.",
        answers.Readiness,
        (503,),
        public=True,
    ),
    Operation(
        "head",
        "/ready",
        "headReadiness",
        "The same, by the status alone.",
        None,
        (503,),
        public=True,
    ),
    Operation("get", "/metrics", "getMetrics", "All metrics, for Prometheus.", None, public=True),
    Operation("get", "/version", "getVersion", "Caravan's version.", answers.Version, public=True),
    Operation("get", "/openapi.json", "getDescription", "This description.", answers.Description),
)

_HEADERS: dict[int, Json] = {
    401: {"WWW-Authenticate": {"required": True, "schema": {"const": "Bearer"}}},
    405: {"Allow": {"required": True, "schema": {"type": "string"}}},
    503: {
        "Retry-After": {"description": "Seconds.", "schema": {"type": "integer", "minimum": 0}},
    },
}
_REQUEST_ID = {
    "description": "The client's own if it was sane, else a fresh one; our log has it, too.",
    "required": True,
    "schema": {"type": "string", "minLength": 1, "maxLength": MAX_REQUEST_ID_CHARACTERS},
}
_IGNORED = {
    "description": "With --ignore-unknown-fields: the fields that were, percent-encoded.",
    "schema": {"type": "string"},
}
_MEANINGS = {
    400: "The request cannot be served as written.",
    401: "No API key, or a wrong one.",
    404: "No such model, or no such path.",
    405: "The path exists; this method does not.",
    413: "The body is longer than what this server reads.",
    415: "The body is not JSON.",
    500: "A bug of the server.",
    503: "Not now: send it again.",
}

router = APIRouter()


@router.get("/openapi.json")
async def openapi(request: Request) -> Response:
    """This server's API."""
    keyed = bool(service_of(request).config.api_key)
    # Building it takes a quarter of a second, once.
    return Response(await asyncio.to_thread(encoded, keyed), media_type=JSON)


@cache
def encoded(keyed: bool) -> bytes:
    """The document as it is sent."""
    return msgspec.json.encode(document(keyed=keyed))


def document(*, keyed: bool) -> Json:
    """The description of a server with API keys, or of one without."""
    errors = _errors()
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Caravan",
            "version": caravan.__version__,
            "description": "Serves Meta's Llama 4. A field that is null counts as absent.",
        },
        "paths": _paths(keyed),
        "components": {
            "schemas": component_schemas(_types())
            | {_error(status): _error_schema(status, kinds) for status, kinds in errors.items()},
            "responses": {_error(status): _error_response(status) for status in errors},
            "securitySchemes": {_KEY: {"type": "http", "scheme": "bearer"}},
        },
    }


def _types() -> Iterator[type]:
    yield answers.LoadProgress
    for operation in OPERATIONS:
        yield from filter(None, (operation.body, operation.answer, operation.event))


def _paths(keyed: bool) -> dict[str, Json]:
    paths = defaultdict[str, Json](dict)
    for operation in OPERATIONS:
        paths[operation.path][operation.method] = _described(operation, keyed)
    return dict(paths)


def _described(operation: Operation, keyed: bool) -> Json:
    needs_key = keyed and not operation.public
    statuses = {*operation.errors, InternalError.status}
    if needs_key:
        statuses.add(InvalidApiKey.status)
    errors = {
        str(status): {"$ref": f"#/components/responses/{_error(status)}"}
        for status in sorted(statuses)
    }
    described: Json = {
        "operationId": operation.name,
        "summary": operation.summary,
        "security": [{_KEY: []}] if needs_key else [],
        "responses": {"200": _success(operation), **errors},
    }
    if operation.parameter:
        described["parameters"] = [
            {
                "name": operation.parameter,
                "in": "path",
                "required": True,
                "schema": {"type": "string"},
            }
        ]
    if operation.body is not None:
        described["requestBody"] = {"required": True, "content": _json(operation.body.__name__)}
    return described


def _success(operation: Operation) -> Json:
    content: Json = {}
    if operation.method == "get":
        content = {TEXT: {"schema": {"type": "string"}}}
    if operation.answer is not None:
        content = _json(operation.answer.__name__)
    if operation.event is not None:
        content[EVENTS] = {"schema": _event(operation.event.__name__)}
    headers: Json = {REQUEST_ID_HEADER: _REQUEST_ID}
    if operation.event is not None:
        headers[IGNORED_HEADER] = _IGNORED
    return {
        "description": "As asked for.",
        "headers": headers,
        **({"content": content} if content else {}),
    }


def _event(chunk: str) -> Json:
    """What OpenAPI 3.2 calls the schema of an item: one event of many."""
    data = [_reference(chunk), *(_reference(_error(status)) for status in _IN_STREAM)]
    return {
        "description": "One event. Between events there may be comments.",
        "type": "object",
        "properties": {
            "data": {
                "anyOf": [
                    {"const": "[DONE]", "description": "The last one."},
                    {
                        "type": "string",
                        "contentMediaType": JSON,
                        "contentSchema": {"anyOf": data},
                    },
                ]
            }
        },
        "required": ["data"],
    }


def _errors() -> dict[int, list[type[ApiError]]]:
    """All errors that have a code or are raised without one, by status."""
    found = defaultdict[int, list[type[ApiError]]](list)
    families = ApiError.__subclasses__()
    for kind in families:
        found[kind.status].append(kind)
        families += kind.__subclasses__()
    return dict(sorted(found.items()))


def _error(status: int) -> str:
    return f"Error{status}"


def _error_schema(status: int, kinds: Iterable[type[ApiError]]) -> Json:
    kinds = list(kinds)
    error = {
        "type": "object",
        "properties": {
            "message": {"type": "string"},
            "type": {"enum": _each(kind.type for kind in kinds)},
            "param": {"type": ["string", "null"], "description": "The field that is wrong."},
            "code": {"enum": _each(kind.code for kind in kinds)},
        },
        "required": ["message", "type", "param", "code"],
    }
    fields: Json = {"error": error}
    if status == StillLoading.status:
        progress = _reference(answers.LoadProgress.__name__)
        fields["progress"] = {
            "description": "Of /ready, while the model loads.",
            "anyOf": [progress, {"type": "null"}],
        }
    return {"type": "object", "properties": fields, "required": ["error"]}


def _error_response(status: int) -> Json:
    return {
        "description": _MEANINGS[status],
        "headers": {REQUEST_ID_HEADER: _REQUEST_ID, **_HEADERS.get(status, {})},
        "content": _json(_error(status)),
    }


def _each(values: Iterable[str | None]) -> list[str | None]:
    return list(dict.fromkeys(values))


def _json(schema: str) -> Json:
    return {JSON: {"schema": _reference(schema)}}


def _reference(schema: str) -> Json:
    return {"$ref": COMPONENTS + schema}
