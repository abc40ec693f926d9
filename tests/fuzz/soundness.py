"""What every answer must be, whatever was sent."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from typing import Any

import jsonschema_rs

from api.described import SCHEMAS, closed
from fuzz.played import MODEL

MAX_ERROR_BYTES = 4 << 10
MAX_MESSAGE = 600  # characters; a field's whole name and a shown value fit


def error_problems(status: int, headers: Mapping[str, str], content: bytes) -> list[str]:
    """What is wrong with an error: its shape, a code of another status, its length."""
    if not headers.get("x-request-id"):
        return ["no x-request-id"]
    if len(content) > MAX_ERROR_BYTES:
        return [f"{len(content)} bytes"]
    try:
        body = json.loads(content)
    except ValueError:
        return [f"not JSON: {content[:100]!r}"]
    problems = schema_problems(f"Error{status}", body)
    if not problems and len(body["error"]["message"]) > MAX_MESSAGE:
        problems.append(f"a message of {len(body['error']['message'])} characters")
    return problems


def schema_problems(name: str, value: object) -> list[str]:
    """What a component of the description says of a value; fields that it lacks are wrong."""
    if name not in SCHEMAS:
        return [f"no schema {name}"]
    return [error.message[:300] for error in _validator(name).iter_errors(value)]


def as_read(body: object) -> object:
    """A body as the server reads it: a field that is null is absent."""
    if isinstance(body, list):
        return [as_read(item) for item in body]
    if isinstance(body, dict):
        return {name: as_read(item) for name, item in body.items() if item is not None}
    return body


def as_meant(body: Any, *, streams: bool) -> Any:
    """A drawn body as a client would write it: our model, 1.0 as 1, fields that agree.

    What they say by themselves is left, so that it is the reason for a refusal.
    """
    meant = _integers(body)
    if not isinstance(meant, dict):
        return meant
    if isinstance(meant.get("model"), str):
        meant["model"] = MODEL
    if "max_tokens" in meant:
        meant.pop("max_completion_tokens", None)
    if "messages" in meant and meant.get("top_logprobs"):
        meant["logprobs"] = True
    if meant.get("prompt_logprobs") is not None:
        meant |= {"stream": False, "stream_options": None}
    elif streams and (meant.get("stream_options") or len(json.dumps(meant)) % 2):
        meant["stream"] = True
    return meant


def _integers(body: Any) -> Any:
    if isinstance(body, list):
        return [_integers(item) for item in body]
    if isinstance(body, dict):
        return {name: _integers(item) for name, item in body.items()}
    whole = isinstance(body, float) and body.is_integer() and abs(body) < 2**53
    return int(body) if whole else body


@cache
def _validator(name: str) -> jsonschema_rs.Draft202012Validator:
    schema = {"$ref": f"#/components/schemas/{name}", "components": {"schemas": closed(SCHEMAS)}}
    return jsonschema_rs.Draft202012Validator(schema)
