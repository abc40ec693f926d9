"""POST /v1/completions."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import BeforeValidator, Field, model_validator

from caravan.api.schema import refused
from caravan.api.schema.base import TokenId, refuse
from caravan.api.schema.sampling import MAX_CHOICES, SamplingBody

_TokenIds = Annotated[list[TokenId], Field(min_length=1)]
_PromptsAsSent = (
    str | _TokenIds | Annotated[list[str | _TokenIds], Field(min_length=1, max_length=MAX_CHOICES)]
)


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


class CompletionBody(SamplingBody):
    """POST /v1/completions."""

    refused = refused.COMPLETION

    prompt: Annotated[
        list[str | list[int]], BeforeValidator(_prompts, json_schema_input_type=_PromptsAsSent)
    ]
    logprobs: int | None = Field(None, ge=0, le=5)
    echo: bool = False
    best_of: int | None = Field(None, ge=1, le=MAX_CHOICES)

    @property
    def num_drawn(self) -> int:
        """Completions of each prompt, of which the best `n` are told."""
        return self.n if self.best_of is None else self.best_of

    @model_validator(mode="after")
    def _fits_one_request(self) -> Self:
        count = len(self.prompt)
        if count * self.num_drawn > MAX_CHOICES:
            field = "n" if self.best_of is None else "best_of"
            refuse(
                "invalid_value",
                f"has {count} prompts and `{field}` is {self.num_drawn}: "
                f"{count * self.num_drawn} choices; one request may have at most {MAX_CHOICES}",
                "prompt",
            )
        return self

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.max_tokens == 0 and not self.echo and self.prompt_logprobs is None:
            refuse(
                "invalid_value",
                "is 0; that is only allowed with `echo` or `prompt_logprobs`",
                "max_tokens",
            )
        if self.best_of is None:
            return self
        if self.best_of < self.n:
            refuse("invalid_value", f"is {self.best_of}; it must be at least `n`", "best_of")
        if self.stream and self.best_of > self.n:
            refuse("invalid_value", "must equal `n` when `stream` is true", "best_of")
        return self
