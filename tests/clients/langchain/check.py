"""LangChain's ChatOpenAI and OpenAI."""

from __future__ import annotations

import uuid
from typing import Any

import openai
from langchain_core.exceptions import (
    ContextOverflowError,
    ModelAuthenticationError,
    ModelInvalidRequestError,
    ModelNotFoundError,
)
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI, OpenAI
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
    same,
)

SETTINGS: dict[str, Any] = {
    "base_url": URL + "/v1",
    "api_key": KEY,
    "model": MODEL,
    "max_retries": 0,
    "timeout": TIMEOUT_S,
}
PARIS = ("get_weather", {"city": "Paris"})
NOW = ("get_time", {"zone": "Europe/Paris"})


class Weather(BaseModel):
    """The weather somewhere."""

    city: str
    temperature_c: int


def get_weather(city: str) -> str:
    """The weather in a city."""
    return f"sunny in {city}"


def get_time(zone: str) -> str:
    """The time in a zone."""
    return f"noon in {zone}"


TOOLS: list[Any] = [tool(get_weather), tool(get_time)]


def model(**fields: Any) -> Any:
    return ChatOpenAI(**{**SETTINGS, **fields})


def with_tools(**fields: Any) -> Any:
    return model().bind_tools(TOOLS, **fields)


def calls(message: Any) -> list[tuple[str, Any]]:
    assert not message.invalid_tool_calls, message
    return [(call["name"], call["args"]) for call in message.tool_calls]


def joined(chunks: Any) -> Any:
    """The sum of a stream's chunks, as LangChain adds them."""
    first, *others = chunks
    for chunk in others:
        first = first + chunk
    return first


@feature("chat")
def check_chat() -> None:
    answer = model().invoke("Grüße 👋")
    same(answer.content, "You said: Grüße 👋")
    same(answer.response_metadata["finish_reason"], "stop")
    usage = answer.usage_metadata
    same(usage["total_tokens"], usage["input_tokens"] + usage["output_tokens"])


@feature("roles")
def check_roles() -> None:
    developer = SystemMessage("Be brief.", additional_kwargs={"__openai_role__": "developer"})
    asked = HumanMessage("Show me the system message.")
    answer = model().invoke([SystemMessage("Be kind."), developer, asked])
    same(answer.content, "I was told: Be kind. | Be brief.")


@feature("stream")
def check_stream() -> None:
    chunks = list(model(stream_usage=True).stream("Grüße 👋"))
    whole = joined(chunks)
    same((whole.content, len(chunks) > 5), ("You said: Grüße 👋", True))
    same(whole.response_metadata["finish_reason"], "stop")
    same(whole.usage_metadata["output_tokens"], 23)  # bytes, and the end of the turn


@feature("choices")
def check_choices() -> None:
    result = model(n=2, seed=5).generate([[HumanMessage("The seed?")]])
    same([g.text for g in result.generations[0]], ["The seed is 5.", "The seed is 6."])


@feature("stop")
def check_stop() -> None:
    same(model(stop=[" four"]).invoke("count").content, "one two three")
    answer = model(max_tokens=7).invoke("count")
    same((answer.content, answer.response_metadata["finish_reason"]), ("one two", "length"))


@feature("seed")
def check_seed() -> None:
    same(model(seed=7).invoke("The seed?").content, "The seed is 7.")


@feature("logprobs")
def check_logprobs() -> None:
    answer = model(logprobs=True, top_logprobs=2).invoke("Grüße 👋")
    content = answer.response_metadata["logprobs"]["content"]
    same(b"".join(bytes(t["bytes"] or ()) for t in content).decode(), answer.content)


@feature("logprobs_stream")
def check_logprobs_stream() -> None:
    whole = joined(model(logprobs=True).stream("Grüße 👋"))
    content = whole.response_metadata["logprobs"]["content"]
    same(b"".join(bytes(t["bytes"] or ()) for t in content).decode(), whole.content)


@feature("image")
def check_image() -> None:
    picture = {"type": "image_url", "image_url": {"url": SAMPLES["picture"]}}
    asked = HumanMessage([{"type": "text", "text": "What is this?"}, picture])
    same(model().invoke([asked]).content, "Pictures: 1.")


@feature("tools_auto")
def check_tools_auto() -> None:
    answer = with_tools().invoke("How is the weather?")
    same(calls(answer), [PARIS])
    same(answer.response_metadata["finish_reason"], "tool_calls")
    same(with_tools().invoke("Hello").content, "You said: Hello")


@feature("tools_pythonic")
def check_tools_pythonic() -> None:
    same(calls(with_tools().invoke("The weather, pythonic")), [PARIS])


@feature("tools_required")
def check_tools_required() -> None:
    same(calls(with_tools(tool_choice="any").invoke("Hello")), [PARIS])


@feature("tools_named")
def check_tools_named() -> None:
    same(calls(with_tools(tool_choice="get_time").invoke("How is the weather?")), [NOW])


@feature("tools_none")
def check_tools_none() -> None:
    answer = with_tools(tool_choice="none").invoke("How is the weather?")
    same((calls(answer), bool(answer.content)), ([], True))


@feature("tools_parallel")
def check_tools_parallel() -> None:
    same(calls(with_tools().invoke("The weather and the time?")), [PARIS, NOW])
    one = with_tools(parallel_tool_calls=False).invoke("The weather and the time?")
    same(calls(one), [PARIS])


@feature("tools_strict")
def check_tools_strict() -> None:
    strict = model().bind_tools(TOOLS, strict=True)
    same(calls(strict.invoke("How is the weather?")), [PARIS])


@feature("tools_stream")
def check_tools_stream() -> None:
    chunks = list(with_tools().stream("The weather and the time?"))
    same(calls(joined(chunks)), [PARIS, NOW])
    assert sum(bool(chunk.tool_call_chunks) for chunk in chunks) > 4, chunks


@feature("tools_results")
def check_tools_results() -> None:
    asked = HumanMessage("How is the weather?")
    answer = with_tools().invoke([asked])
    (call,) = answer.tool_calls
    result: ToolMessage = TOOLS[0].invoke(call)
    assert isinstance(answer, AIMessage)
    final = with_tools().invoke([asked, answer, result])
    same(final.content, "The result is sunny in Paris.")


@feature("json_object")
def check_json_object() -> None:
    structured = model().with_structured_output(Weather, method="json_mode")
    same(structured.invoke("Answer in json"), Weather(city="Paris", temperature_c=21))


@feature("json_schema")
def check_json_schema() -> None:
    for method in ("json_schema", "function_calling"):
        structured = model().with_structured_output(Weather, method=method)
        same(structured.invoke("How warm is it?"), Weather(city="Paris", temperature_c=21))


@feature("json_schema_stream")
def check_json_schema_stream() -> None:
    structured = model().with_structured_output(Weather, method="json_schema")
    *_, last = structured.stream("How warm is it?")
    same(last, Weather(city="Paris", temperature_c=21))


@feature("completions")
def check_completions() -> None:
    same(OpenAI(**SETTINGS, max_tokens=50).invoke("count", stop=[" three"]), "one two")


@feature("completions_stream")
def check_completions_stream() -> None:
    parts = list(OpenAI(**SETTINGS, max_tokens=100).stream("count"))
    same("".join(parts), "one two three four five six seven eight nine ten")
    assert len(parts) > 5, parts


@feature("error_model")
def check_error_model() -> None:
    error = failure(ModelNotFoundError, lambda: model(model="x").invoke("Hello"))
    assert isinstance(error, openai.NotFoundError)
    same(error.code, "model_not_found")


@feature("error_parameter")
def check_error_parameter() -> None:
    strange = model(extra_body={"no_such": 1})
    error = failure(ModelInvalidRequestError, lambda: strange.invoke("Hello"))
    assert isinstance(error, openai.BadRequestError)
    same((error.code, error.param), ("unknown_parameter", "no_such"))


@feature("error_context")
def check_error_context() -> None:
    failure(ContextOverflowError, lambda: model().invoke("long " * 5000))


@feature("error_key")
def check_error_key() -> None:
    failure(ModelAuthenticationError, lambda: model(api_key="wrong").invoke("Hello"))


@feature("error_stream")
def check_error_stream() -> None:
    texts: list[str] = []

    def read() -> None:
        texts.extend(chunk.content for chunk in model().stream("die"))

    error = failure(openai.APIError, read)
    same((error.code, "".join(texts)), ("engine_dead", "You said: "))


@feature("retries")
def check_retries() -> None:
    failure(openai.InternalServerError, lambda: model().invoke(f"busy {uuid.uuid4()}"))
    text = f"busy {uuid.uuid4()}"
    same(model(max_retries=1).invoke(text).content, f"You said: {text}")


@feature("request_id")
def check_request_id() -> None:
    answer = model(include_response_headers=True).invoke("Hello")
    assert answer.response_metadata["headers"]["x-request-id"]


@feature("timeout")
def check_timeout() -> None:
    failure(openai.APITimeoutError, lambda: model(timeout=0.5).invoke("slow"))


if __name__ == "__main__":
    run()
