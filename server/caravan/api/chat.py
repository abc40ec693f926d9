"""POST /v1/chat/completions."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from caravan.api.answer import Json
from caravan.api.body import prepared
from caravan.api.choices import Piece
from caravan.api.conversation import load_prompt
from caravan.api.logprobs import chat_logprobs
from caravan.api.pipeline import Job, make_job, respond
from caravan.api.schema import ChatBody
from caravan.api.service import service_of
from caravan.api.validation import validated
from caravan.text.tokenizer import Tokenizer

router = APIRouter()


@router.post("/v1/chat/completions")
async def create_chat_completion(request: Request) -> Response:
    """An assistant's message, or several, for a conversation."""
    return await respond(request, prepare)


async def prepare(request: Request) -> Job:
    """Validates, loads pictures, renders. Without `max_tokens` the rest of the context is allowed.

    Raises InvalidRequest's subclasses, ModelNotFound, Overloaded and ClientDisconnect.
    """
    service = service_of(request)

    def read(json_body: dict[str, Any]) -> ChatBody:
        body = validated(ChatBody, json_body)
        service.require_model(body.model)
        return body

    body = await prepared(request, read)
    prompt, images = await load_prompt(request, body.messages)
    return make_job(
        service,
        body,
        ChatDialect(service.tokenizer, logprobs=body.logprobs),
        {"messages": prompt},
        max_tokens=body.max_completion_tokens or body.max_tokens,
        default_max_tokens=None,
        logprobs=body.top_logprobs if body.logprobs else None,
        images=images,
    )


class ChatDialect:
    """Choices with messages and deltas."""

    id_prefix = "chatcmpl-"
    object = "chat.completion"
    chunk_object = "chat.completion.chunk"

    def __init__(self, tokenizer: Tokenizer, *, logprobs: bool) -> None:
        self._tokenizer = tokenizer
        self._logprobs = logprobs

    def opening(self, index: int) -> Json:
        """The role; SDKs add deltas up, so it comes once."""
        return {
            "index": index,
            "delta": {"role": "assistant", "content": ""},
            "logprobs": None,
            "finish_reason": None,
        }

    def chunk(self, piece: Piece) -> Json:
        """A delta: text, the end, or both."""
        listed = self._logprobs and piece.tokens
        return {
            "index": piece.index,
            "delta": {"content": piece.text} if piece.text else {},
            "logprobs": chat_logprobs(self._tokenizer, piece.tokens) if listed else None,
            "finish_reason": piece.finish,
        }

    def whole(self, piece: Piece) -> Json:
        """A message."""
        return {
            "index": piece.index,
            "message": {"role": "assistant", "content": piece.text, "refusal": None},
            "logprobs": chat_logprobs(self._tokenizer, piece.tokens) if self._logprobs else None,
            "finish_reason": piece.finish,
        }
