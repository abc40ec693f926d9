"""Request bodies. A field is obeyed or refused by name; `null` is absent; nothing is coerced.

    Body                  an object without unknown fields
    ├── SamplingBody      what chat and completions share
    │   ├── ChatBody         POST /v1/chat/completions
    │   └── CompletionBody   POST /v1/completions
    ├── TokenizeBody      POST /tokenize
    └── DetokenizeBody    POST /detokenize

Limits that depend on the loaded model (vocabulary, context) are checked in `sampling`.
`validation` turns what pydantic finds into errors of ours.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, NoReturn, Self, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    FailFast,
    Field,
    model_validator,
)
from pydantic_core import PydanticCustomError

from caravan.api import parameters

MAX_CHOICES = 128  # prompts * n of one request
MAX_STOPS = 4
MAX_STOP_CHARACTERS = 256  # of each; every choice keeps an automaton of all of them
MAX_BIASED_TOKENS = 1024
MAX_STOP_TOKENS = 1024
INT64_MIN, INT64_MAX = -(2**63), 2**63 - 1

# A penalty beyond these bounds makes infinities of ordinary fp32 logits.
REPETITION_PENALTY_MIN, REPETITION_PENALTY_MAX = 0.01, 100.0

T = TypeVar("T")
Items = Annotated[list[T], FailFast()]  # one error is enough, however long the list


def refuse(code: str, message: str, field: str | None = None) -> NoReturn:
    """Ends validation with an error of the class that has this code (`validation.CLASSES`).

    `message` continues the name of the field: "must be a string". `field` names a field inside the
    value that is being validated.
    """
    raise PydanticCustomError(code, "{message}", {"message": message, "field": field})


class Body(BaseModel):
    """A JSON object; its subclasses' fields are the only ones it may have."""

    model_config = ConfigDict(strict=True, frozen=True, allow_inf_nan=False)
    unsupported: ClassVar[frozenset[str]] = frozenset()

    @model_validator(mode="before")
    @classmethod
    def _known_fields(cls, value: Any) -> Any:  # noqa: ANN401
        if not isinstance(value, dict):
            return value
        present = {name: item for name, item in value.items() if item is not None}
        for name in present:
            if name in cls.unsupported:
                refuse("unsupported_parameter", "is not supported by this server", name)
            if name not in cls.model_fields:
                refuse("unknown_parameter", "is not a known field", name)
        return present


def _listed(value: object) -> object:
    if not isinstance(value, (str, list)):
        refuse("invalid_type", "must be a string or a list of strings")
    return [value] if isinstance(value, str) else value


def _token_keys(biases: dict[str, float]) -> dict[str, float]:
    """JSON has no integer keys: each must be the one way to write its token id."""
    for key in biases:
        if not (key.isascii() and key.isdigit() and len(key) <= 10 and str(int(key)) == key):
            refuse("invalid_value", "is not a token id", key)
    return biases


def _text_parts(value: object) -> object:
    if not isinstance(value, (str, list)):
        refuse("invalid_type", "must be a string or a list of content parts")
    return [{"type": "text", "text": value}] if isinstance(value, str) else value


def _is_token_list(value: object) -> bool:
    return isinstance(value, list) and all(type(item) is int for item in value)


def _prompts(value: object) -> object:
    """The four forms of `prompt` as one: a list whose items are strings or lists of token ids."""
    if isinstance(value, str):
        return [value]
    if not isinstance(value, list):
        refuse("invalid_type", "must be a string, a list of strings, or token ids")
    if not value:
        refuse("invalid_value", "is an empty list; give at least one prompt or token id")
    if _is_token_list(value):
        return [value]
    for index, item in enumerate(value):
        if not isinstance(item, str) and not _is_token_list(item):
            refuse("invalid_type", "must be a string or a list of token ids", f"[{index}]")
        if item == []:
            refuse("invalid_value", "is an empty list of token ids", f"[{index}]")
    return value


class ImageUrl(Body):
    """Where a picture is: `data:` with its bytes in base64, `http:` or `https:`."""

    url: Annotated[str, Field(min_length=1)]
    detail: Literal["auto", "low", "high"] = "auto"


class ContentPart(Body):
    """One part of a message's content: a text or a picture."""

    unsupported = parameters.CONTENT_PART

    type: Literal["text", "image_url"]
    text: str | None = None
    image_url: ImageUrl | None = None

    @model_validator(mode="after")
    def _is_what_it_says(self) -> Self:
        for name in ("text", "image_url"):
            if name == self.type and getattr(self, name) is None:
                refuse("missing_required_parameter", f"is required for type `{name}`", name)
            if name != self.type and getattr(self, name) is not None:
                refuse("invalid_value", f"belongs to parts of type `{name}`", name)
        return self


class FunctionCall(Body):
    """The function of a tool call in the history."""

    name: Annotated[str, Field(min_length=1)]
    arguments: str


class ToolCallItem(Body):
    """A call that the assistant made earlier in the conversation."""

    unsupported = parameters.TOOL_CALL

    id: str
    type: Literal["function"]
    function: FunctionCall


class MessageItem(Body):
    """One message of the conversation; which fields it needs depends on its role."""

    unsupported = parameters.MESSAGE

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: Annotated[Items[ContentPart], Field(min_length=1), BeforeValidator(_text_parts)] = []
    tool_calls: Items[ToolCallItem] = []
    tool_call_id: str | None = None

    @model_validator(mode="after")
    def _fits_role(self) -> Self:
        if self.tool_calls and self.role != "assistant":
            refuse("invalid_value", "belongs to messages of role `assistant`", "tool_calls")
        if self.tool_call_id is not None and self.role != "tool":
            refuse("invalid_value", "belongs to messages of role `tool`", "tool_call_id")
        if self.tool_call_id is None and self.role == "tool":
            refuse("missing_required_parameter", "is required for role `tool`", "tool_call_id")
        if not self.content and not self.tool_calls:
            refuse("missing_required_parameter", "is required", "content")
        for index, part in enumerate(self.content):
            if part.image_url is not None and self.role != "user":
                refuse("invalid_value", "belongs to messages of role `user`", f"content[{index}]")
        return self


class StreamOptions(Body):
    """Options of a streamed answer."""

    include_usage: bool = False
    include_obfuscation: bool = False

    @model_validator(mode="after")
    def _is_plain(self) -> Self:
        if self.include_obfuscation:
            refuse(
                "unsupported_parameter",
                "is not supported; leave it out or send false",
                "include_obfuscation",
            )
        return self


class SamplingBody(Body):
    """Fields that chat and completions share; None is the model's own default."""

    model: str
    max_tokens: int | None = Field(None, ge=1, le=INT64_MAX)
    min_tokens: int = Field(0, ge=0, le=INT64_MAX)
    n: int = Field(1, ge=1, le=MAX_CHOICES)
    stream: bool = False
    stream_options: StreamOptions | None = None
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, gt=0, le=1)
    top_k: int | None = Field(None, ge=-1)
    min_p: float = Field(0.0, ge=0, le=1)
    seed: int | None = Field(None, ge=INT64_MIN, le=INT64_MAX)
    repetition_penalty: float = Field(1.0, ge=REPETITION_PENALTY_MIN, le=REPETITION_PENALTY_MAX)
    frequency_penalty: float = Field(0.0, ge=-2, le=2)
    presence_penalty: float = Field(0.0, ge=-2, le=2)
    logit_bias: Annotated[
        dict[str, Annotated[float, Field(ge=-100, le=100)]],
        Field(max_length=MAX_BIASED_TOKENS),
        AfterValidator(_token_keys),
    ] = {}
    stop: Annotated[
        Items[Annotated[str, Field(min_length=1, max_length=MAX_STOP_CHARACTERS)]],
        Field(max_length=MAX_STOPS),
        BeforeValidator(_listed),
    ] = []
    stop_token_ids: Annotated[Items[int], Field(max_length=MAX_STOP_TOKENS)] = []
    ignore_eos: bool = False

    @model_validator(mode="after")
    def _streams(self) -> Self:
        if self.stream_options is not None and not self.stream:
            refuse("invalid_value", "is only allowed when `stream` is true", "stream_options")
        return self


class ChatBody(SamplingBody):
    """POST /v1/chat/completions."""

    unsupported = parameters.CHAT

    messages: Annotated[Items[MessageItem], Field(min_length=1)]
    max_completion_tokens: int | None = Field(None, ge=1, le=INT64_MAX)
    logprobs: bool = False
    top_logprobs: int = Field(0, ge=0, le=20)

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        if self.top_logprobs and not self.logprobs:
            refuse("invalid_value", "is only allowed when `logprobs` is true", "top_logprobs")
        if None not in (self.max_tokens, self.max_completion_tokens) and (
            self.max_tokens != self.max_completion_tokens
        ):
            refuse(
                "invalid_value",
                "contradicts `max_completion_tokens`; send one of the two",
                "max_tokens",
            )
        return self


class CompletionBody(SamplingBody):
    """POST /v1/completions."""

    unsupported = parameters.COMPLETION

    prompt: Annotated[list[str | list[int]], BeforeValidator(_prompts)]
    logprobs: int | None = Field(None, ge=0, le=5)

    @model_validator(mode="after")
    def _fits_one_request(self) -> Self:
        count = len(self.prompt)
        if count * self.n > MAX_CHOICES:
            refuse(
                "invalid_value",
                f"has {count} prompts and `n` is {self.n}: {count * self.n} choices; one request "
                f"may have at most {MAX_CHOICES}",
                "prompt",
            )
        return self


class TokenizeBody(Body):
    """POST /tokenize: either a prompt, as /v1/completions reads it, or a conversation."""

    model: str | None = None
    prompt: str | None = None
    messages: Annotated[Items[MessageItem], Field(min_length=1)] = []

    @model_validator(mode="after")
    def _has_one(self) -> Self:
        if self.prompt is None and not self.messages:
            refuse("missing_required_parameter", "or `messages` is required", "prompt")
        if self.prompt is not None and self.messages:
            refuse("invalid_value", "and `messages` exclude each other", "prompt")
        return self


class DetokenizeBody(Body):
    """POST /detokenize."""

    model: str | None = None
    tokens: Items[int]
