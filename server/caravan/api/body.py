"""JSON in and out. Strict in: what two parsers could read differently is refused."""

from __future__ import annotations

import asyncio
import json
import math
import re
from collections.abc import Callable, Mapping
from typing import Any, NoReturn, TypeVar

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from caravan.api.validation import json_type, shown
from caravan.errors import InvalidRequest, InvalidType, InvalidValue, UnsupportedMediaType

# Parsing, rendering and tokenising more bytes than this would hold up other requests' tokens.
OFF_LOOP_BYTES = 16 << 10

_SURROGATE_ESCAPE = re.compile(r"\\u[dD][89a-fA-F]")

T = TypeVar("T")


async def prepared(request: Request, prepare: Callable[[dict[str, Any]], T]) -> T:
    """What `prepare` makes of the request's JSON object; a large one is read in a thread.

    The bytes are not kept: an answer may take minutes, and pictures in a body are megabytes.
    Raises UnsupportedMediaType, InvalidRequest, RequestTooLarge and what `prepare` raises.
    """
    require_json(request.headers.get("content-type"))
    raw = b"".join([part async for part in request.stream()])
    return await off_loop(len(raw), lambda: prepare(parse_object(raw)))


async def off_loop(num_bytes: int, work: Callable[[], T]) -> T:
    """What `work` returns, done in a thread if there are too many bytes for the event loop's."""
    return work() if num_bytes <= OFF_LOOP_BYTES else await asyncio.to_thread(work)


def json_response(
    value: object, status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    """An HTTP answer with a JSON body."""
    return Response(msgspec.json.encode(value), status, headers, media_type="application/json")


def require_json(content_type: str | None) -> None:
    """Raises UnsupportedMediaType unless the type is JSON; no type at all is taken for JSON."""
    if content_type is None:
        return
    media_type = content_type.partition(";")[0].strip().lower()
    kind, _, subtype = media_type.partition("/")
    if kind != "application" or (subtype != "json" and not subtype.endswith("+json")):
        raise UnsupportedMediaType(
            f"The body's content type is `{shown(content_type)}`; "
            "send JSON with `Content-Type: application/json`."
        )


def parse_object(raw: bytes) -> dict[str, Any]:
    """The JSON object in `raw`, UTF-8. Raises InvalidRequest, InvalidType or InvalidValue.

    Refused, too: a name that occurs twice, NaN and Infinity, numbers that overflow, half a
    surrogate pair, and nesting deeper than the interpreter's stack.
    """
    try:
        text = raw.decode("utf-8")
        body = json.loads(
            text,
            object_pairs_hook=_unique_names,
            parse_constant=_no_constant,
            parse_float=_finite_float,
        )
        if _SURROGATE_ESCAPE.search(text):
            json.dumps(body, ensure_ascii=False).encode()
    except json.JSONDecodeError as error:
        raise InvalidRequest(
            f"The body is not valid JSON: line {error.lineno}, column {error.colno}."
        ) from None
    except UnicodeError:
        raise InvalidRequest("The body is not valid UTF-8.") from None
    except RecursionError:
        raise InvalidRequest("The body is nested too deeply.") from None
    except ValueError:  # int() of more than 4300 digits
        raise InvalidRequest("The body has a number with too many digits.") from None
    if not isinstance(body, dict):
        raise InvalidType(f"The body must be a JSON object, not {json_type(body)}.")
    return body


def _unique_names(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise InvalidRequest(f"The body names `{shown(name)}` twice.", param=shown(name))
        found[name] = value
    return found


def _no_constant(name: str) -> NoReturn:
    raise InvalidValue(f"The body has the number {name}, which is not JSON.")


def _finite_float(digits: str) -> float:
    value = float(digits)
    if math.isinf(value):
        raise InvalidValue(f"The number {shown(digits)} is too large.")
    return value
