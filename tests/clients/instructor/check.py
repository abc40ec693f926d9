"""Instructor over OpenAI's SDK, in each of its modes."""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from typing import Any

import instructor
import openai
from instructor.core import IncompleteOutputException, InstructorRetryException
from pydantic import BaseModel, field_validator

from clients.checklist import (
    KEY,
    MODEL,
    SAMPLES,
    TIMEOUT_S,
    URL,
    failure,
    feature,
    run,
    said,
    same,
)


class Weather(BaseModel):
    """The weather somewhere."""

    city: str
    temperature_c: int


class Clock(BaseModel):
    """The time somewhere."""

    zone: str


class Heat(Weather):
    """Never what the engine says."""

    @field_validator("temperature_c")
    @classmethod
    def _hot(cls, value: int) -> int:
        if value < 40:
            raise ValueError("it must be hot")
        return value


PARIS = {"city": "Paris", "temperature_c": 21}


def dumped(found: Any) -> Any:
    """What Instructor returns is of a class that it makes of the one that was asked for."""
    assert isinstance(found, Weather), found
    return found.model_dump()


def client(mode: instructor.Mode = instructor.Mode.TOOLS, **options: Any) -> Any:
    settings = {"base_url": URL + "/v1", "api_key": KEY, "max_retries": 0, "timeout": TIMEOUT_S}
    return instructor.from_openai(openai.OpenAI(**{**settings, **options}), mode=mode)


def ask(
    text: str, wanted: Any, mode: instructor.Mode = instructor.Mode.TOOLS, **fields: Any
) -> Any:
    fields = {"model": MODEL, "max_retries": 0, **fields}
    return client(mode).create(messages=said(text), response_model=wanted, **fields)


@feature("chat")
def check_chat() -> None:
    same(ask("Grüße 👋", None).choices[0].message.content, "You said: Grüße 👋")


@feature("image")
def check_image() -> None:
    picture = instructor.Image.from_base64(SAMPLES["picture"])
    messages = [{"role": "user", "content": ["What is this?", picture]}]
    answer = client().create(model=MODEL, messages=messages, response_model=None)
    same(answer.choices[0].message.content, "Pictures: 1.")


@feature("tools_named")
def check_tools_named() -> None:
    same(dumped(ask("How warm is it?", Weather)), PARIS)


@feature("tools_parallel")
def check_tools_parallel() -> None:
    mode = instructor.Mode.PARALLEL_TOOLS
    found = ask("The weather and the clock?", Iterable[Weather | Clock], mode)
    same([item.model_dump() for item in found], [PARIS, {"zone": "Europe/Paris"}])


@feature("tools_strict")
def check_tools_strict() -> None:
    same(dumped(ask("How warm is it?", Weather, instructor.Mode.TOOLS_STRICT)), PARIS)


@feature("tools_stream")
def check_tools_stream() -> None:
    parts = list(
        client().create_partial(
            model=MODEL, messages=said("How warm is it?"), response_model=Weather, max_retries=0
        )
    )
    same(parts[-1].model_dump(), PARIS)
    assert len(parts) > 4, parts


@feature("tools_results")
def check_tools_results() -> str:
    error = failure(InstructorRetryException, lambda: ask("Is it hot?", Heat, max_retries=1))
    same(error.n_attempts, 2)
    return "it asks again, with the call and what was wrong with it"


@feature("json_object")
def check_json_object() -> None:
    same(dumped(ask("How warm is it?", Weather, instructor.Mode.JSON)), PARIS)
    same(dumped(ask("How warm is it?", Weather, instructor.Mode.MD_JSON)), PARIS)


@feature("json_schema")
def check_json_schema() -> None:
    same(dumped(ask("How warm is it?", Weather, instructor.Mode.JSON_SCHEMA)), PARIS)


@feature("json_schema_stream")
def check_json_schema_stream() -> None:
    parts = list(
        client(instructor.Mode.JSON_SCHEMA).create_partial(
            model=MODEL, messages=said("How warm is it?"), response_model=Weather, max_retries=0
        )
    )
    same(parts[-1].model_dump(), PARIS)


@feature("stop")
def check_stop() -> None:
    failure(IncompleteOutputException, lambda: ask("How warm is it?", Weather, max_tokens=20))


@feature("error_model")
def check_error_model() -> None:
    error = failure(InstructorRetryException, lambda: ask("Hello", Weather, model="x"))
    assert "does not exist" in str(error), error


@feature("error_key")
def check_error_key() -> None:
    error = failure(
        InstructorRetryException,
        lambda: client(api_key="wrong").create(
            model=MODEL, messages=said("Hello"), response_model=Weather, max_retries=0
        ),
    )
    assert isinstance(error.__cause__, openai.AuthenticationError), error.__cause__


@feature("retries")
def check_retries() -> None:
    text = f"busy {uuid.uuid4()}"
    found = client(max_retries=1).create(
        model=MODEL, messages=said(text), response_model=Weather, max_retries=0
    )
    same(dumped(found), PARIS)


if __name__ == "__main__":
    run()
