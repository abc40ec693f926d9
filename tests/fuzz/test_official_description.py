"""schemathesis sends what OpenAI's own description allows, and what it does not.

Much of it is refused, for this server does not do everything. Every refusal must be one that
OpenAI's clients can read, in time, and leave nothing open.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from schemathesis.checks import not_a_server_error
from schemathesis.schemas import BaseSchema

from caravan.config import ApiConfig
from fuzz.drawn_cases import FUZZING, Case, config, prepared, send_all
from fuzz.played import ANSWER_S, PlayedApp
from fuzz.soundness import as_meant, error_problems

OFFICIAL = Path(__file__).parents[3] / "shared/data/openai-openapi.yaml"  # not in every checkout
EXAMPLES = 60  # of each operation
OPERATIONS = [
    ("post", "/chat/completions"),
    ("post", "/completions"),
    ("get", "/models"),
    ("get", "/models/{model}"),
]


@pytest.fixture(scope="module")
def official() -> dict[str, Any]:
    """87,000 lines, read once."""
    if not OFFICIAL.exists():
        pytest.skip("shared/ is not beside this checkout")
    description: dict[str, Any] = schemathesis.openapi.from_path(OFFICIAL).raw_schema
    paths = {path: description["paths"][path] for _, path in OPERATIONS}
    return {**description, "paths": paths}


@pytest.mark.parametrize("lenient", [False, True], ids=["strict", "lenient"])
@pytest.mark.parametrize(("method", "path"), OPERATIONS)
def test_every_answer_is_ours(
    official: dict[str, Any], method: str, path: str, lenient: bool
) -> None:
    app = PlayedApp(ApiConfig(ignore_unknown_fields=lenient), lambda index, prompt: [b"Hello!"])
    schema: BaseSchema = schemathesis.openapi.from_dict(official, config=config())
    statuses = Counter[int]()

    def check(case: Case) -> None:
        case.body = as_meant(case.body, streams=True)
        response = case.call(timeout=ANSWER_S)
        statuses[response.status_code] += 1
        case.validate_response(response, checks=[not_a_server_error])
        if response.status_code != 200:
            headers = {name: value[0] for name, value in response.headers.items()}
            assert error_problems(response.status_code, headers, response.content) == []
        assert app.forget(), "a generation is open"

    send_all(prepared(schema, app)[path][method], check, examples=EXAMPLES // 2, modes=[FUZZING])
    assert path == "/models/{model}" or statuses[200]
