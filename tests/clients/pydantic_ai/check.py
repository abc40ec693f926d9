"""Pydantic AI's agents."""

from __future__ import annotations

import asyncio
import uuid
from typing import Any

from openai import AsyncOpenAI
from pydantic import BaseModel
from pydantic_ai import (
    Agent,
    BinaryContent,
    ModelSettings,
    NativeOutput,
    PromptedOutput,
    ToolOutput,
)
from pydantic_ai.exceptions import (
    ModelAPIError,
    ModelAuthenticationError,
    ModelContextWindowExceededError,
    ModelHTTPError,
    ModelNotFoundError,
    ModelTimeoutError,
)
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider

from clients.checklist import (
    KEY,
    MODEL,
    SAMPLES,
    TIMEOUT_S,
    URL,
    failure,
    feature,
    run,
    same,
)


class Weather(BaseModel):
    """The weather somewhere."""

    city: str
    temperature_c: int


PARIS = Weather(city="Paris", temperature_c=21)


def get_weather(city: str) -> str:
    """The weather in a city."""
    return f"sunny in {city}"


def get_time(zone: str) -> str:
    """The time in a zone."""
    return f"noon in {zone}"


def agent(*, name: str = MODEL, client: Any = None, **fields: Any) -> Any:
    options = {"base_url": URL + "/v1", "api_key": KEY, "max_retries": 0, "timeout": TIMEOUT_S}
    provider = OpenAIProvider(openai_client=AsyncOpenAI(**{**options, **(client or {})}))
    return Agent(OpenAIChatModel(name, provider=provider), **fields)


def say(text: Any, **fields: Any) -> Any:
    return agent(**fields).run_sync(text)


@feature("chat")
def check_chat() -> None:
    result = say("Grüße 👋")
    same(result.output, "You said: Grüße 👋")
    same(result.response.finish_reason, "stop")
    same(result.usage.output_tokens, 23)


@feature("roles")
def check_roles() -> None:
    same(say("Show me the system message.", instructions="Be kind.").output, "I was told: Be kind.")


@feature("stream")
def check_stream() -> None:
    async def read() -> tuple[list[str], Any]:
        async with agent().run_stream("Grüße 👋") as result:
            parts = [part async for part in result.stream_text(delta=True, debounce_by=None)]
            return parts, result.usage

    parts, usage = asyncio.run(read())
    same(("".join(parts), usage.output_tokens), ("You said: Grüße 👋", 23))
    assert len(parts) > 5, parts


@feature("stop")
def check_stop() -> None:
    settings = ModelSettings(stop_sequences=[" four"])
    same(say("count", model_settings=settings).output, "one two three")
    result = say("count", model_settings=ModelSettings(max_tokens=7))
    same((result.output, result.response.finish_reason), ("one two", "length"))


@feature("seed")
def check_seed() -> None:
    same(say("The seed?", model_settings=ModelSettings(seed=7)).output, "The seed is 7.")


@feature("image")
def check_image() -> None:
    picture = BinaryContent.from_data_uri(SAMPLES["picture"])
    same(say(["What is this?", picture]).output, "Pictures: 1.")


@feature("tools_results")
def check_tools_results() -> None:
    result = say("The weather and the time?", tools=[get_weather, get_time])
    same(result.output, "The result is sunny in Paris and noon in Europe/Paris.")
    same(len(result.all_messages()), 4)


@feature("tools_auto")
def check_tools_auto() -> None:
    same(say("Hello", tools=[get_weather]).output, "You said: Hello")
    same(say("How is the weather?", tools=[get_weather]).output, "The result is sunny in Paris.")


@feature("tools_pythonic")
def check_tools_pythonic() -> None:
    result = say("The weather, pythonic", tools=[get_weather])
    same(result.output, "The result is sunny in Paris.")


@feature("tools_required")
def check_tools_required() -> None:
    same(say("How warm is it?", output_type=ToolOutput(Weather)).output, PARIS)


@feature("tools_strict")
def check_tools_strict() -> None:
    same(say("How warm is it?", output_type=ToolOutput(Weather, strict=True)).output, PARIS)


@feature("tools_stream")
def check_tools_stream() -> None:
    async def read() -> list[Any]:
        async with agent(output_type=ToolOutput(Weather)).run_stream("How warm is it?") as result:
            return [part async for part in result.stream_output(debounce_by=None)]

    parts = asyncio.run(read())
    same(parts[-1], PARIS)


@feature("json_object")
def check_json_object() -> None:
    same(say("How warm is it?", output_type=PromptedOutput(Weather)).output, PARIS)


@feature("json_schema")
def check_json_schema() -> None:
    same(say("How warm is it?", output_type=NativeOutput(Weather)).output, PARIS)


@feature("json_schema_stream")
def check_json_schema_stream() -> None:
    async def read() -> list[Any]:
        async with agent(output_type=NativeOutput(Weather)).run_stream("How warm is it?") as result:
            return [part async for part in result.stream_output(debounce_by=None)]

    parts = asyncio.run(read())
    same(parts[-1], PARIS)


@feature("error_model")
def check_error_model() -> None:
    error = failure(ModelNotFoundError, lambda: say("Hello", name="x"))
    same(error.provider_error_code, "model_not_found")


@feature("error_parameter")
def check_error_parameter() -> None:
    settings = ModelSettings(extra_body={"no_such": 1})
    error = failure(ModelHTTPError, lambda: say("Hello", model_settings=settings))
    same((error.status_code, error.provider_error_code), (400, "unknown_parameter"))


@feature("error_context")
def check_error_context() -> None:
    failure(ModelContextWindowExceededError, lambda: say("long " * 5000))


@feature("error_key")
def check_error_key() -> None:
    failure(ModelAuthenticationError, lambda: say("Hello", client={"api_key": "wrong"}))


@feature("error_stream")
def check_error_stream() -> None:
    texts: list[str] = []

    async def read() -> None:
        async with agent().run_stream("die") as result:
            async for part in result.stream_text(delta=True, debounce_by=None):
                texts.append(part)

    error = failure(ModelAPIError, lambda: asyncio.run(read()))
    same((error.in_stream, error.provider_error_code), (True, "engine_dead"))
    same("".join(texts), "You said: ")


@feature("retries")
def check_retries() -> None:
    error = failure(ModelHTTPError, lambda: say(f"busy {uuid.uuid4()}"))
    same((error.provider_error_code, error.retry_after), ("overloaded", 1.0))
    text = f"busy {uuid.uuid4()}"
    same(say(text, client={"max_retries": 1}).output, f"You said: {text}")


@feature("timeout")
def check_timeout() -> None:
    failure(ModelTimeoutError, lambda: say("slow", client={"timeout": 0.5}))


if __name__ == "__main__":
    run()
