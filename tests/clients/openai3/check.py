"""OpenAI's Python SDK."""

from __future__ import annotations

import json
import uuid
from typing import Any

import openai

import clients.openai3.tool_checks  # noqa: F401 - registers its checks
from clients.checklist import MODEL, SAMPLES, failure, feature, run, said, same
from clients.openai3.sdk import Weather, chat, client


def logprob(byte: int) -> float:
    """What the scripted engine says of each token, which is a byte."""
    return -(byte % 8 + 1) / 8


@feature("chat")
def check_chat() -> None:
    answer = chat("Grüße 👋")
    (choice,) = answer.choices
    same(choice.message.content, "You said: Grüße 👋")
    same((choice.finish_reason, choice.message.role), ("stop", "assistant"))
    assert answer.id.startswith("chatcmpl-"), answer.id
    assert answer.usage is not None
    same(answer.usage.total_tokens, answer.usage.prompt_tokens + answer.usage.completion_tokens)


@feature("roles")
def check_roles() -> None:
    messages: list[Any] = [
        {"role": "system", "content": "Be kind."},
        {"role": "developer", "content": [{"type": "text", "text": "Be brief."}]},
        {"role": "assistant", "content": "Hello."},
        {"role": "user", "content": "Show me the system message."},
    ]
    answer = client.chat.completions.create(model=MODEL, messages=messages)
    same(answer.choices[0].message.content, "I was told: Be kind. | Be brief.")


@feature("stream")
def check_stream() -> None:
    options: Any = {"include_usage": True}
    stream = client.chat.completions.create(
        model=MODEL, messages=said("Grüße 👋"), stream=True, stream_options=options
    )
    chunks = list(stream)
    deltas = [chunk.choices[0].delta for chunk in chunks[:-1]]
    same([delta.role for delta in deltas], ["assistant", *[None] * (len(deltas) - 1)])
    same("".join(delta.content or "" for delta in deltas), "You said: Grüße 👋")
    assert len(chunks) > 5, chunks
    same([c.choices[0].finish_reason for c in chunks[-3:-1]], [None, "stop"])
    same((chunks[-1].choices, chunks[-1].usage), ([], chat("Grüße 👋").usage))
    with client.chat.completions.stream(model=MODEL, messages=said("Hello")) as helper:
        helper.until_done()
        same(helper.get_final_completion().choices[0].message.content, "You said: Hello")


@feature("choices")
def check_choices() -> None:
    answer = chat("The seed?", n=2, seed=5)
    same([c.message.content for c in answer.choices], ["The seed is 5.", "The seed is 6."])
    with client.chat.completions.stream(
        model=MODEL, messages=said("The seed?"), n=2, seed=5
    ) as stream:
        final = stream.get_final_completion()
    same([c.message.content for c in final.choices], ["The seed is 5.", "The seed is 6."])


@feature("stop")
def check_stop() -> None:
    choice = chat("count", stop=[" four", " nine"]).choices[0]
    same((choice.message.content, choice.finish_reason), ("one two three", "stop"))
    choice = chat("count", max_completion_tokens=7).choices[0]
    same((choice.message.content, choice.finish_reason), ("one two", "length"))


@feature("seed")
def check_seed() -> None:
    same(chat("The seed?", seed=-3).choices[0].message.content, "The seed is -3.")


@feature("logprobs")
def check_logprobs() -> None:
    choice = chat("Grüße 👋", logprobs=True, top_logprobs=2).choices[0]
    assert choice.logprobs
    assert choice.logprobs.content
    assert all(len(token.top_logprobs) == 2 for token in choice.logprobs.content)
    data = b"".join(bytes(token.bytes or ()) for token in choice.logprobs.content)
    same(data.decode(), choice.message.content)
    same([token.logprob for token in choice.logprobs.content], list(map(logprob, data)))


@feature("logprobs_stream")
def check_logprobs_stream() -> None:
    stream = client.chat.completions.create(
        model=MODEL, messages=said("Grüße 👋"), stream=True, logprobs=True
    )
    text, data = "", b""
    for chunk in stream:
        choice = chunk.choices[0]
        text += choice.delta.content or ""
        for token in (choice.logprobs and choice.logprobs.content) or ():
            data += bytes(token.bytes or ())
    same((text, data.decode()), ("You said: Grüße 👋",) * 2)


@feature("image")
def check_image() -> None:
    content = [
        {"type": "text", "text": "What is this?"},
        {"type": "image_url", "image_url": {"url": SAMPLES["picture"]}},
    ]
    messages: list[Any] = [{"role": "user", "content": content}]
    answer = client.chat.completions.create(model=MODEL, messages=messages)
    same(answer.choices[0].message.content, "Pictures: 1.")


@feature("json_object")
def check_json_object() -> None:
    text = (
        chat("Answer in json", response_format={"type": "json_object"}).choices[0].message.content
    )
    same(json.loads(text or ""), {"city": "Paris", "temperature_c": 21})


@feature("json_schema")
def check_json_schema() -> None:
    answer = client.chat.completions.parse(
        model=MODEL, messages=said("How warm is it?"), response_format=Weather
    )
    same(answer.choices[0].message.parsed, Weather(city="Paris", temperature_c=21))


@feature("json_schema_stream")
def check_json_schema_stream() -> None:
    with client.chat.completions.stream(
        model=MODEL, messages=said("How warm is it?"), response_format=Weather
    ) as stream:
        final = stream.get_final_completion()
    same(final.choices[0].message.parsed, Weather(city="Paris", temperature_c=21))


@feature("completions")
def check_completions() -> None:
    answer = client.completions.create(model=MODEL, prompt="count", stop=" three", max_tokens=50)
    same((answer.choices[0].text, answer.choices[0].finish_reason), ("one two", "stop"))
    assert answer.usage


@feature("completions_echo")
def check_completions_echo() -> None:
    answer = client.completions.create(
        model=MODEL, prompt="count", echo=True, logprobs=1, max_tokens=3
    )
    (choice,) = answer.choices
    same(choice.text, "countone")
    assert choice.logprobs
    same("".join(choice.logprobs.tokens or ()), choice.text)
    same(choice.logprobs.token_logprobs, list(map(logprob, b"countone")))
    ids: Any = [99, 111]  # nothing comes before the first of them, so it has no log-probability
    only: Any = client.completions.create(
        model=MODEL, prompt=ids, echo=True, logprobs=0, max_tokens=0
    )
    same((only.choices[0].text, only.usage.completion_tokens), ("co", 0))
    same(only.choices[0].logprobs.token_logprobs, [None, logprob(111)])


@feature("completions_many")
def check_completions_many() -> None:
    prompts: Any = ["seed a", [98, 99]]
    answer = client.completions.create(model=MODEL, prompt=prompts, n=2, seed=1, max_tokens=50)
    same([choice.index for choice in answer.choices], [0, 1, 2, 3])
    texts = ["The seed is 1.", "The seed is 2.", "You said: bc", "You said: bc"]
    same([choice.text for choice in answer.choices], texts)


@feature("completions_stream")
def check_completions_stream() -> None:
    options: Any = {"include_usage": True}
    chunks = list(
        client.completions.create(
            model=MODEL, prompt="count", stream=True, stream_options=options, max_tokens=100
        )
    )
    text = "".join(choice.text for chunk in chunks for choice in chunk.choices)
    same(text, "one two three four five six seven eight nine ten")
    same(chunks[-1].usage and chunks[-1].usage.prompt_tokens, 6)


@feature("models")
def check_models() -> None:
    same([model.id for model in client.models.list()], [MODEL])
    same(client.models.retrieve(MODEL).id, MODEL)
    same(failure(openai.NotFoundError, lambda: client.models.retrieve("x")).code, "model_not_found")


@feature("error_model")
def check_error_model() -> None:
    error = failure(
        openai.NotFoundError,
        lambda: client.chat.completions.create(model="x", messages=said("Hello")),
    )
    same(
        (error.code, error.param, error.type), ("model_not_found", "model", "invalid_request_error")
    )


@feature("error_parameter")
def check_error_parameter() -> None:
    error = failure(openai.BadRequestError, lambda: chat("Hello", extra_body={"no_such": 1}))
    same((error.code, error.param), ("unknown_parameter", "no_such"))
    error = failure(openai.BadRequestError, lambda: chat("Hello", temperature=3))
    same((error.code, error.param), ("invalid_value", "temperature"))


@feature("error_context")
def check_error_context() -> None:
    error = failure(openai.BadRequestError, lambda: chat("long " * 5000))
    same((error.code, error.param), ("context_length_exceeded", "messages"))


@feature("error_key")
def check_error_key() -> None:
    stranger = client.with_options(api_key="wrong")
    same(failure(openai.AuthenticationError, stranger.models.list).code, "invalid_api_key")


@feature("error_stream")
def check_error_stream() -> None:
    texts = []

    def read() -> None:
        stream = client.chat.completions.create(model=MODEL, messages=said("die"), stream=True)
        for chunk in stream:
            texts.append(chunk.choices[0].delta.content or "")

    error = failure(openai.APIError, read)
    same((error.code, error.type), ("engine_dead", "server_error"))
    same("".join(texts), "You said: ")


@feature("retries")
def check_retries() -> None:
    def text() -> str:
        return f"busy {uuid.uuid4()}"

    error = failure(openai.InternalServerError, lambda: chat(text()))
    same((error.code, error.response.headers["retry-after"]), ("overloaded", "1"))
    patient, asked = client.with_options(max_retries=1), text()
    answer = patient.chat.completions.create(model=MODEL, messages=said(asked))
    same(answer.choices[0].message.content, f"You said: {asked}")


@feature("request_id")
def check_request_id() -> None:
    same(chat("Hello", extra_headers={"x-request-id": "mine"})._request_id, "mine")
    assert chat("Hello")._request_id
    error = failure(openai.BadRequestError, lambda: chat("Hello", temperature=3))
    assert error.request_id


@feature("timeout")
def check_timeout() -> None:
    hasty = client.with_options(timeout=0.5)
    failure(
        openai.APITimeoutError,
        lambda: hasty.chat.completions.create(model=MODEL, messages=said("slow")),
    )
    same(chat("Hello").choices[0].message.content, "You said: Hello")


if __name__ == "__main__":
    run()
