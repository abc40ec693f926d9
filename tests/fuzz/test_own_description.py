"""schemathesis sends what our own description allows, and what it does not.

The description's answers are closed here: one with a field that is not described is wrong, too.
What the description forbids must be refused; some of what it allows is refused as well.
"""

from __future__ import annotations

import json
from collections import Counter

import pytest
import schemathesis
from schemathesis.checks import (
    content_type_conformance,
    ignored_auth,
    negative_data_rejection,
    not_a_server_error,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from schemathesis.schemas import BaseSchema

from api.described import closed
from caravan.api.openapi import OPERATIONS, Operation, document
from caravan.api.schema.tokens import TokenizeBody
from caravan.config import ApiConfig
from fuzz.drawn_cases import COVERAGE, FUZZING, Case, config, prepared, send_all
from fuzz.played import ANSWER_S, KEY, MODEL, Part, PlayedApp
from fuzz.soundness import as_meant, as_read, error_problems, schema_problems

HEADERS = {"Authorization": f"Bearer {KEY}"}
EXAMPLES = 30  # of each operation, besides the systematic ones
REFUSALS = (400, 401, 404, 405, 413, 415)
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    ignored_auth,
]

PARTS: list[Part] = [
    [b"Hello there!"],
    [b""],
    ["é€🙂".encode(), b"\xf0\x9f"],
    [b'[f(a="b"), g(c=[1, 2])] and more'],
    [b'{"name": "f", "parameters": {"a": 1}}'],
    [b"[c]", 262, b"f()", 263],
]


def play(index: int, prompt: list[int]) -> Part:
    return PARTS[(len(prompt) + index) % len(PARTS)]


@pytest.fixture
def app() -> PlayedApp:
    return PlayedApp(ApiConfig(api_key=(KEY,)), play)


@pytest.fixture
def description(app: PlayedApp) -> BaseSchema:
    described = document(keyed=True)
    described["components"] = closed(described["components"])
    return prepared(schemathesis.openapi.from_dict(described, config=config()), app)


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda item: f"{item.method} {item.path}")
def test_every_operation(operation: Operation, app: PlayedApp, description: BaseSchema) -> None:
    kinds = Counter[tuple[int, str]]()  # of answers, by status and media type

    def check(case: Case) -> None:
        case.body = as_meant(case.body, streams=operation.event is not None)
        if len(case.path_parameters.get("model_id", "")) % 2:
            case.path_parameters["model_id"] = MODEL
        response = case.call(headers=HEADERS, timeout=ANSWER_S)
        kinds[response.status_code, response.headers["content-type"][0].partition(";")[0]] += 1
        wrong = body_problems(operation, response.request.body)
        checks = [*CHECKS, negative_data_rejection] if wrong else CHECKS
        case.validate_response(response, checks=checks, headers=HEADERS)
        assert not wrong or response.status_code in REFUSALS, wrong
        if response.status_code != 200 and operation.method != "head":
            headers = {name: value[0] for name, value in response.headers.items()}
            assert error_problems(response.status_code, headers, response.content) == []
        assert app.forget(), "a generation is open"

    # Systematic cases of messages and tools are sent once, to chat.
    modes = [FUZZING] if operation.body is TokenizeBody else [COVERAGE, FUZZING]
    send_all(description[operation.path][operation.method], check, examples=EXAMPLES, modes=modes)
    described = description.raw_schema["paths"][operation.path][operation.method]["responses"]
    served = {kind for status, kind in kinds if status == 200}
    assert served >= described["200"].get("content", {}).keys()


def body_problems(operation: Operation, sent: object) -> list[str]:
    """What is wrong with a request's body, says the description."""
    if operation.body is None:
        return []
    try:
        body = json.loads(sent if isinstance(sent, (bytes, str)) else b"")
    except ValueError:
        return ["not JSON"]
    return schema_problems(operation.body.__name__, as_read(body))
