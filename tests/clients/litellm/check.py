"""LiteLLM's SDK, with the server as an `openai/` model."""

from __future__ import annotations

import json
import uuid
from typing import Any

import litellm
from pydantic import BaseModel

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

SETTINGS: dict[str, Any] = {
    "model": f"openai/{MODEL}",
    "api_base": URL + "/v1",
    "api_key": KEY,
    "max_retries": 0,
    "timeout": TIMEOUT_S,
}
FUNCTIONS = [SAMPLES["weather_tool"], SAMPLES["time_tool"]]
PARIS = ("get_weather", {"city": "Paris"})
NOW = ("get_time", {"zone": "Europe/Paris"})


class Weather(BaseModel):
    city: str
    temperature_c: int


def chat(text: str, **fields: Any) -> Any:
    return litellm.completion(**{**SETTINGS, "messages": said(text), **fields})


def rebuilt(text: str, **fields: Any) -> tuple[list[Any], Any]:
    """A stream's chunks, and the answer that LiteLLM makes of them."""
    options = {"include_usage": True}
    chunks = list(chat(text, stream=True, stream_options=options, **fields))
    return chunks, litellm.stream_chunk_builder(chunks)


def calls(answer: Any) -> list[tuple[str, Any]]:
    found = answer.choices[0].message.tool_calls or []
    return [(call.function.name, json.loads(call.function.arguments)) for call in found]


@feature("chat")
def check_chat() -> None:
    answer = chat("Grüße 👋")
    same(answer.choices[0].message.content, "You said: Grüße 👋")
    same(answer.choices[0].finish_reason, "stop")
    same(answer.usage.completion_tokens, 23)


@feature("roles")
def check_roles() -> None:
    messages = [
        {"role": "system", "content": "Be kind."},
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": "Show me the system message."},
    ]
    answer = chat("", messages=messages)
    same(answer.choices[0].message.content, "I was told: Be kind. | Be brief.")


@feature("stream")
def check_stream() -> None:
    chunks, answer = rebuilt("Grüße 👋")
    same(answer.choices[0].message.content, "You said: Grüße 👋")
    same((answer.choices[0].finish_reason, answer.usage.completion_tokens), ("stop", 23))
    assert len(chunks) > 5, chunks


@feature("choices")
def check_choices() -> None:
    answer = chat("The seed?", n=2, seed=5)
    same([c.message.content for c in answer.choices], ["The seed is 5.", "The seed is 6."])


@feature("stop")
def check_stop() -> None:
    choice = chat("count", stop=[" four"]).choices[0]
    same((choice.message.content, choice.finish_reason), ("one two three", "stop"))
    choice = chat("count", max_tokens=7).choices[0]
    same((choice.message.content, choice.finish_reason), ("one two", "length"))


@feature("seed")
def check_seed() -> None:
    same(chat("The seed?", seed=7).choices[0].message.content, "The seed is 7.")


@feature("logprobs")
def check_logprobs() -> None:
    choice = chat("Grüße 👋", logprobs=True, top_logprobs=2).choices[0]
    data = b"".join(bytes(token.bytes or ()) for token in choice.logprobs.content)
    same(data.decode(), choice.message.content)


@feature("image")
def check_image() -> None:
    content = [
        {"type": "text", "text": "What is this?"},
        {"type": "image_url", "image_url": {"url": SAMPLES["picture"]}},
    ]
    answer = chat("", messages=[{"role": "user", "content": content}])
    same(answer.choices[0].message.content, "Pictures: 1.")


@feature("tools_auto")
def check_tools_auto() -> None:
    answer = chat("How is the weather?", tools=FUNCTIONS)
    same((calls(answer), answer.choices[0].finish_reason), ([PARIS], "tool_calls"))
    same(chat("Hello", tools=FUNCTIONS).choices[0].message.content, "You said: Hello")


@feature("tools_pythonic")
def check_tools_pythonic() -> None:
    same(calls(chat("The weather, pythonic", tools=FUNCTIONS)), [PARIS])


@feature("tools_required")
def check_tools_required() -> None:
    same(calls(chat("Hello", tools=FUNCTIONS, tool_choice="required")), [PARIS])


@feature("tools_named")
def check_tools_named() -> None:
    choice = {"type": "function", "function": {"name": "get_time"}}
    same(calls(chat("How is the weather?", tools=FUNCTIONS, tool_choice=choice)), [NOW])


@feature("tools_none")
def check_tools_none() -> None:
    answer = chat("How is the weather?", tools=FUNCTIONS, tool_choice="none")
    same((calls(answer), bool(answer.choices[0].message.content)), ([], True))


@feature("tools_parallel")
def check_tools_parallel() -> None:
    same(calls(chat("The weather and the time?", tools=FUNCTIONS)), [PARIS, NOW])
    one = chat("The weather and the time?", tools=FUNCTIONS, parallel_tool_calls=False)
    same(calls(one), [PARIS])


@feature("tools_stream")
def check_tools_stream() -> None:
    chunks, answer = rebuilt("The weather and the time?", tools=FUNCTIONS)
    same((calls(answer), answer.choices[0].finish_reason), ([PARIS, NOW], "tool_calls"))
    assert sum(bool(c.choices and c.choices[0].delta.tool_calls) for c in chunks) > 4, chunks


@feature("tools_results")
def check_tools_results() -> None:
    message = chat("How is the weather?", tools=FUNCTIONS).choices[0].message
    result = {"role": "tool", "tool_call_id": message.tool_calls[0].id, "content": "sunny"}
    messages = [*said("How is the weather?"), message, result]
    answer = chat("", messages=messages, tools=FUNCTIONS)
    same(answer.choices[0].message.content, "The result is sunny.")


@feature("json_object")
def check_json_object() -> None:
    answer = chat("Answer in json", response_format={"type": "json_object"})
    same(json.loads(answer.choices[0].message.content), {"city": "Paris", "temperature_c": 21})


@feature("json_schema")
def check_json_schema() -> None:
    text = chat("How warm is it?", response_format=Weather).choices[0].message.content
    same(Weather.model_validate_json(text), Weather(city="Paris", temperature_c=21))


@feature("completions")
def check_completions() -> None:
    model = f"text-completion-openai/{MODEL}"
    answer = litellm.text_completion(
        **{**SETTINGS, "model": model}, prompt="count", stop=" three", max_tokens=50
    )
    same((answer.choices[0].text, answer.choices[0].finish_reason), ("one two", "stop"))


@feature("completions_stream")
def check_completions_stream() -> None:
    model = f"text-completion-openai/{MODEL}"
    stream = litellm.text_completion(
        **{**SETTINGS, "model": model}, prompt="count", stream=True, max_tokens=100
    )
    text = "".join(chunk.choices[0].text or "" for chunk in stream)
    same(text, "one two three four five six seven eight nine ten")


@feature("models")
def check_models() -> None:
    found = litellm.get_valid_models(
        check_provider_endpoint=True,
        custom_llm_provider="openai",
        api_key=KEY,
        api_base=URL + "/v1",
    )
    same(found, [MODEL])


@feature("error_model")
def check_error_model() -> None:
    failure(litellm.NotFoundError, lambda: chat("Hello", model="openai/x"))


@feature("error_parameter")
def check_error_parameter() -> None:
    error = failure(litellm.BadRequestError, lambda: chat("Hello", extra_body={"no_such": 1}))
    assert "no_such" in str(error), error


@feature("error_context")
def check_error_context() -> None:
    failure(litellm.ContextWindowExceededError, lambda: chat("long " * 5000))


@feature("error_key")
def check_error_key() -> None:
    failure(litellm.AuthenticationError, lambda: chat("Hello", api_key="wrong"))


@feature("error_stream")
def check_error_stream() -> str:
    texts: list[str] = []

    def read() -> None:
        texts.extend(chunk.choices[0].delta.content or "" for chunk in chat("die", stream=True))

    error = failure(litellm.exceptions.MidStreamFallbackError, read)
    assert "The engine has ended." in str(error), error
    same("".join(texts), "You said: ")
    return "raised as `MidStreamFallbackError`"


@feature("retries")
def check_retries() -> None:
    failure(litellm.ServiceUnavailableError, lambda: chat(f"busy {uuid.uuid4()}"))
    text = f"busy {uuid.uuid4()}"
    same(chat(text, max_retries=1).choices[0].message.content, f"You said: {text}")


@feature("request_id")
def check_request_id() -> None:
    headers = chat("Hello")._hidden_params["additional_headers"]
    assert headers["llm_provider-x-request-id"], headers


@feature("timeout")
def check_timeout() -> None:
    failure(litellm.Timeout, lambda: chat("slow", timeout=0.5))


if __name__ == "__main__":
    run()
