"""POST /v1/chat/completions."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from caravan.api.schema import refused
from caravan.api.schema.base import INT64_MAX, Items, only, refuse, refuse_unless
from caravan.api.schema.conversation import Conversation, MessageItem
from caravan.api.schema.output import ResponseFormat
from caravan.api.schema.sampling import Label, SamplingBody, ServiceTier
from caravan.api.schema.tools import ChoiceWord, ToolChoice, check_choice, choice_words

_ToolChoice = Annotated[
    ToolChoice, BeforeValidator(choice_words, json_schema_input_type=ChoiceWord | ToolChoice)
]


class ChatBody(Conversation, SamplingBody):
    """POST /v1/chat/completions."""

    refused = refused.CHAT

    messages: Annotated[Items[MessageItem], Field(min_length=1)]
    max_completion_tokens: int | None = Field(None, ge=1, le=INT64_MAX)
    logprobs: bool = False
    top_logprobs: int = Field(0, ge=0, le=20)
    response_format: ResponseFormat = ResponseFormat(type="text")
    tool_choice: _ToolChoice | None = None
    parallel_tool_calls: bool = True
    service_tier: ServiceTier | None = None
    modalities: Annotated[Items[Literal["text", "audio"]], only(["text"])] = ["text"]
    reasoning_effort: Annotated[str, only("none")] = "none"
    verbosity: Annotated[Literal["low", "medium", "high"], only("medium")] = "medium"
    store: Annotated[bool, only(False)] = False
    safety_identifier: Label | None = None
    prompt_cache_key: Label | None = None
    prompt_cache_retention: Annotated[str, only("in_memory", "in-memory")] = "in_memory"

    @model_validator(mode="after")
    def _limits_agree(self) -> Self:
        if self.top_logprobs and not self.logprobs:
            refuse("invalid_value", "is only allowed when `logprobs` is true", "top_logprobs")
        if self.max_tokens == 0:
            refuse("invalid_value", "is 0; it must be at least 1", "max_tokens")
        if None not in (self.max_tokens, self.max_completion_tokens) and (
            self.max_tokens != self.max_completion_tokens
        ):
            refuse(
                "invalid_value",
                "contradicts `max_completion_tokens`; send one of the two",
                "max_tokens",
            )
        return self

    @model_validator(mode="after")
    def _is_possible(self) -> Self:
        """Fields whose other values this server cannot obey."""
        for field, obeyed, message in (
            ("modalities", self.modalities == ["text"], "must be `text`: there is no audio here"),
            ("reasoning_effort", self.reasoning_effort == "none", "must be `none`: no reasoning"),
            ("verbosity", self.verbosity == "medium", "must be `medium`; ask for it in a message"),
            ("store", not self.store, "must be false: this server stores no completions"),
            (
                "prompt_cache_retention",
                self.prompt_cache_retention in ("in_memory", "in-memory"),
                "must be `in_memory`",
            ),
        ):
            refuse_unless(obeyed, message, field)
        return self

    @model_validator(mode="after")
    def _one_shape(self) -> Self:
        if self.tool_choice is not None:
            check_choice(self.tools, self.tool_choice)
        if self.structured_outputs is None:
            return self
        if self.response_format.type != "text":
            field = "structured_outputs"
            refuse("invalid_value", "and `response_format` exclude each other", field)
        if self.tools and (self.tool_choice is None or self.tool_choice.type != "none"):
            refuse("invalid_value", "and `tools` exclude each other", "structured_outputs")
        return self
