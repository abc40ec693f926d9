"""What answers look like, field by field, for the description of the API (`openapi`).

`NotRequired` fields are there where a request asked for them. The code that writes answers does not
use these types; the tests hold what it writes against them.
"""

from __future__ import annotations

from typing import Any, Literal, NotRequired

from typing_extensions import TypedDict  # pydantic needs this one before Python 3.12

from caravan.messages import FinishReason

ChatFinishReason = FinishReason | Literal["tool_calls"]


class RankedToken(TypedDict):
    """A token that could have stood in a place of the prompt."""

    logprob: float
    rank: int | None  # 1: the likeliest; null: none of those asked for
    decoded_token: str


PromptLogprobs = list[dict[str, RankedToken] | None]


class PromptTokensDetails(TypedDict):
    """Where a prompt's tokens came from."""

    cached_tokens: int
    text_tokens: int
    image_tokens: int


class Usage(TypedDict):
    """Tokens of a request, all of its choices together."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokensDetails


class TopLogprob(TypedDict):
    """A token with its log-probability; special tokens have no bytes."""

    token: str
    logprob: float
    bytes: list[int] | None


class TokenLogprob(TopLogprob):
    """A token of an answer, with the likeliest ones in its place."""

    top_logprobs: list[TopLogprob]


class ChatLogprobs(TypedDict):
    """The tokens of a message."""

    content: list[TokenLogprob]
    refusal: None


class CalledFunction(TypedDict):
    """A function, and its arguments as JSON."""

    name: str
    arguments: str


class CalledCustom(TypedDict):
    """A custom tool and its input."""

    name: str
    input: str


class FunctionToolCall(TypedDict):
    """A call of a function."""

    id: str
    type: Literal["function"]
    function: CalledFunction


class CustomToolCall(TypedDict):
    """A call of a custom tool."""

    id: str
    type: Literal["custom"]
    custom: CalledCustom


class Message(TypedDict):
    """What the assistant says."""

    role: Literal["assistant"]
    content: str | None
    refusal: None
    tool_calls: NotRequired[list[FunctionToolCall | CustomToolCall]]


class _Head(TypedDict):
    id: str
    created: int  # Unix time in seconds
    model: str
    system_fingerprint: str  # changes whenever the same request could give other tokens


class ChatChoice(TypedDict):
    """One of the answers to a conversation."""

    index: int
    message: Message
    logprobs: ChatLogprobs | None
    finish_reason: ChatFinishReason
    token_ids: NotRequired[list[int]]


class ChatCompletion(_Head):
    """Everything that the assistant says."""

    object: Literal["chat.completion"]
    service_tier: NotRequired[Literal["default", "flex"]]
    choices: list[ChatChoice]
    usage: Usage
    prompt_token_ids: NotRequired[list[int]]
    prompt_logprobs: NotRequired[PromptLogprobs]


class FunctionDelta(TypedDict):
    """The name comes once; the arguments are to be joined."""

    name: NotRequired[str]
    arguments: str


class CustomDelta(TypedDict):
    """The name comes once; the input is to be joined."""

    name: NotRequired[str]
    input: str


class ToolCallDelta(TypedDict):
    """More of a call; id and type come once."""

    index: int
    id: NotRequired[str]
    type: NotRequired[Literal["function", "custom"]]
    function: NotRequired[FunctionDelta]
    custom: NotRequired[CustomDelta]


class MessageDelta(TypedDict):
    """More of a message; the role comes once."""

    role: NotRequired[Literal["assistant"]]
    content: NotRequired[str]
    tool_calls: NotRequired[list[ToolCallDelta]]


class ChatChunkChoice(TypedDict):
    """More of one answer."""

    index: int
    delta: MessageDelta
    logprobs: ChatLogprobs | None
    finish_reason: ChatFinishReason | None
    token_ids: NotRequired[list[int]]


class ChatChunk(_Head):
    """One event of a streamed chat completion."""

    object: Literal["chat.completion.chunk"]
    service_tier: NotRequired[Literal["default", "flex"]]
    choices: list[ChatChunkChoice]
    usage: NotRequired[Usage | None]
    prompt_token_ids: NotRequired[list[int]]
    obfuscation: NotRequired[str]


class CompletionLogprobs(TypedDict):
    """Of each token its text, its value, the likeliest ones, and where its text begins."""

    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None]
    text_offset: list[int]


class CompletionChoice(TypedDict):
    """What follows one prompt; in a stream, more of it."""

    index: int
    text: str
    logprobs: CompletionLogprobs | None
    finish_reason: FinishReason | None  # null: more will come
    token_ids: NotRequired[list[int]]
    prompt_token_ids: NotRequired[list[int]]
    prompt_logprobs: NotRequired[PromptLogprobs]


class Completion(_Head):
    """What follows the prompts."""

    object: Literal["text_completion"]
    choices: list[CompletionChoice]
    usage: Usage


class CompletionChunk(_Head):
    """One event of a streamed completion."""

    object: Literal["text_completion"]
    choices: list[CompletionChoice]
    usage: NotRequired[Usage | None]
    obfuscation: NotRequired[str]


class Tokenized(TypedDict):
    """A prompt's tokens."""

    tokens: list[int]
    count: int
    max_model_len: int


class Detokenized(TypedDict):
    """The text of tokens."""

    prompt: str


class Model(TypedDict):
    """A model that this server serves."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    max_model_len: int


class ModelList(TypedDict):
    """All of them."""

    object: Literal["list"]
    data: list[Model]


class Health(TypedDict):
    """The engine is alive."""

    status: Literal["ok"]


class Readiness(TypedDict):
    """The server takes requests."""

    status: Literal["ready"]


class Version(TypedDict):
    """Caravan's version."""

    version: str


class LoadProgress(TypedDict):
    """How far the start-up is."""

    phase: str
    done: int
    total: int
    unit: str


class Description(TypedDict):
    """A document in OpenAPI 3.1; OpenAPI's own schema says more."""

    openapi: str
    info: dict[str, Any]
    paths: dict[str, Any]
    components: dict[str, Any]
