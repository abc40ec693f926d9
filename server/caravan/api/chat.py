"""POST /v1/chat/completions."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from caravan.api.body import prepared
from caravan.api.chat_dialect import ChatDialect
from caravan.api.choices import AskedPrompt
from caravan.api.constraint import chat_constraint
from caravan.api.conversation import load_prompt
from caravan.api.pipeline import Ignored, Job, Order, make_job, read_body, respond
from caravan.api.prompts import truncated
from caravan.api.schema.chat import ChatBody
from caravan.api.service import Service, service_of
from caravan.api.toolset import Toolset, toolset

FLEX_PRIORITY = 100  # the tier that waits for the others

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
    ignored = Ignored()

    def read(json_body: dict[str, Any]) -> ChatBody:
        body = read_body(service, ChatBody, json_body, ignored)
        service.require_model(body.model)
        return body

    body = await prepared(request, read)
    tools = toolset(body)
    constraint = chat_constraint(body, tools)
    prompt, images = await load_prompt(
        request,
        body,
        tools.shown if tools else (),
        parallel_tool_calls=tools is None or tools.parallel,
    )
    prompt = truncated(prompt, body.truncate_prompt_tokens, "messages")
    asked = AskedPrompt(prompt.tokens, prompt.image_tokens)
    order = Order(
        dialect=ChatDialect(service.tokenizer, body, tools, asked),
        prompts={"messages": prompt},
        asked=[asked],
        images=images,
        max_tokens=body.max_completion_tokens or body.max_tokens,
        default_max_tokens=None,
        logprobs=body.top_logprobs if body.logprobs else None,
        prompt_logprobs=body.prompt_logprobs,
        num_drawn=body.n,
        num_told=body.n,
        grammar=await service.grammars.grammar(constraint) if constraint else None,
        shown_specials=_shown_specials(service, body, tools),
        priority=max(body.priority, FLEX_PRIORITY if body.service_tier == "flex" else 0),
        head=_tier(body),
        ignored=ignored,
    )
    return make_job(service, body, order)


def _shown_specials(service: Service, body: ChatBody, tools: Toolset | None) -> frozenset[int]:
    """Special tokens whose names are text: those the client wants, and those the parser needs."""
    if not body.skip_special_tokens:
        return frozenset(service.tokenizer.special_ids.values())
    return service.marker_ids if tools else frozenset()


def _tier(body: ChatBody) -> dict[str, str]:
    """Who named a tier is told which one served them."""
    if body.service_tier is None:
        return {}
    return {"service_tier": "flex" if body.service_tier == "flex" else "default"}
