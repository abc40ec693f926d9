"""POST /tokenize and /detokenize."""

from __future__ import annotations

from typing import Self

from pydantic import model_validator

from caravan.api.schema.base import Body, Items, TokenId, refuse
from caravan.api.schema.conversation import Conversation


class TokenizeBody(Conversation):
    """POST /tokenize: either a prompt, as /v1/completions reads it, or a conversation."""

    model: str | None = None
    prompt: str | None = None

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
    tokens: Items[TokenId]
