"""POST /tokenize and /detokenize: the tokens that a request would have, and their text."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from caravan.api.answer import Json
from caravan.api.body import json_response, off_loop, prepared
from caravan.api.conversation import load_prompt
from caravan.api.sampling import require_token_ids
from caravan.api.schema.tokens import DetokenizeBody, TokenizeBody
from caravan.api.service import Service, service_of
from caravan.api.toolset import shown_tools
from caravan.api.validation import validated
from caravan.text.prompt import render_completion

router = APIRouter()


@router.post("/tokenize")
async def tokenize(request: Request) -> Response:
    """A prompt's tokens as /v1/completions reads it, or those of a conversation as chat does."""
    service = service_of(request)
    body = await prepared(request, lambda body: _validated(service, body))
    max_model_len = service.loaded().max_model_len
    if body.prompt is None:
        prompt, _ = await load_prompt(request, body, shown_tools(body.tools))
    else:
        text = body.prompt
        prompt = await off_loop(len(text), lambda: render_completion(service.tokenizer, text))
    tokens = prompt.tokens
    return json_response({"tokens": tokens, "count": len(tokens), "max_model_len": max_model_len})


@router.post("/detokenize")
async def detokenize(request: Request) -> Response:
    """The text of tokens; special ones have none."""
    service = service_of(request)
    return json_response(await prepared(request, lambda body: _text(service, body)))


def _validated(service: Service, json_body: dict[str, Any]) -> TokenizeBody:
    body = validated(TokenizeBody, json_body)
    service.require_model(body.model)
    return body


def _text(service: Service, json_body: dict[str, Any]) -> Json:
    body = validated(DetokenizeBody, json_body)
    service.require_model(body.model)
    require_token_ids(body.tokens, service.tokenizer.vocab_size, "tokens")
    return {"prompt": service.tokenizer.decode(body.tokens)}
