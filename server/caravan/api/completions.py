"""POST /v1/completions: raw prompts, as text or token ids.

A prompt of text begins with <|begin_of_text|>, so an empty one is that token alone. Token ids are
taken as they are.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from caravan.api.answer import Json
from caravan.api.body import prepared
from caravan.api.choices import Piece
from caravan.api.logprobs import CompletionLogprobs
from caravan.api.pipeline import Job, make_job, respond
from caravan.api.sampling import require_token_ids
from caravan.api.schema import CompletionBody
from caravan.api.service import Service, service_of
from caravan.api.validation import validated
from caravan.text.prompt import Prompt, render_completion
from caravan.text.tokenizer import Tokenizer

DEFAULT_MAX_TOKENS = 16  # OpenAI's

router = APIRouter()


@router.post("/v1/completions")
async def create_completion(request: Request) -> Response:
    """What follows a prompt, or each of several."""
    return await respond(request, prepare)


async def prepare(request: Request) -> Job:
    """Validates and tokenises. Raises InvalidRequest's subclasses and ModelNotFound."""
    service = service_of(request)
    return await prepared(request, lambda body: _job(service, body))


def _job(service: Service, json_body: dict[str, Any]) -> Job:
    body = validated(CompletionBody, json_body)
    service.require_model(body.model)
    return make_job(
        service,
        body,
        CompletionDialect(service.tokenizer, logprobs=body.logprobs is not None),
        _prompts(service, body.prompt),
        max_tokens=body.max_tokens,
        default_max_tokens=DEFAULT_MAX_TOKENS,
        logprobs=body.logprobs,
    )


def _prompts(service: Service, prompts: list[str | list[int]]) -> dict[str, Prompt]:
    """By the name of their field."""
    vocab_size = service.loaded().vocab_size
    rendered = {}
    for index, prompt in enumerate(prompts):
        name = f"prompt[{index}]" if len(prompts) > 1 else "prompt"
        if isinstance(prompt, str):
            rendered[name] = render_completion(service.tokenizer, prompt)
        else:
            require_token_ids(prompt, vocab_size, name)
            rendered[name] = Prompt(prompt)
    return rendered


class CompletionDialect:
    """Choices with text; a chunk looks like a small whole."""

    id_prefix = "cmpl-"
    object = "text_completion"
    chunk_object = "text_completion"

    def __init__(self, tokenizer: Tokenizer, *, logprobs: bool) -> None:
        self._logprobs = logprobs
        self._writers = defaultdict[int, CompletionLogprobs](lambda: CompletionLogprobs(tokenizer))

    def opening(self, index: int) -> None:
        """Text has no role to announce."""

    def chunk(self, piece: Piece) -> Json:
        """Text, the end, or both."""
        listed = self._logprobs and piece.tokens
        return self._choice(
            piece, self._writers[piece.index].write(piece.tokens) if listed else None
        )

    def whole(self, piece: Piece) -> Json:
        """All of the text."""
        writer = self._writers[piece.index] if self._logprobs else None
        return self._choice(piece, writer.write(piece.tokens) if writer else None)

    def _choice(self, piece: Piece, logprobs: Json | None) -> Json:
        return {
            "index": piece.index,
            "text": piece.text,
            "logprobs": logprobs,
            "finish_reason": piece.finish,
        }
