"""POST /v1/completions: raw prompts, as text or token ids.

A prompt of text begins with <|begin_of_text|>, so an empty one is that token alone. Token ids are
taken as they are.
"""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from caravan.api.body import prepared
from caravan.api.choices import AskedPrompt
from caravan.api.completion_dialect import CompletionDialect
from caravan.api.constraint import completion_constraint
from caravan.api.pipeline import Ignored, Job, Order, make_job, read_body, respond
from caravan.api.prompts import truncated
from caravan.api.sampling import require_token_ids
from caravan.api.schema.completion import CompletionBody
from caravan.api.service import Service, service_of
from caravan.text.prompt import Prompt, render_completion

DEFAULT_MAX_TOKENS = 16  # OpenAI's

router = APIRouter()


@router.post("/v1/completions")
async def create_completion(request: Request) -> Response:
    """What follows a prompt, or each of several."""
    return await respond(request, prepare)


async def prepare(request: Request) -> Job:
    """Validates and tokenises. Raises InvalidRequest's subclasses and ModelNotFound."""
    service = service_of(request)
    ignored = Ignored()

    def read(json_body: dict[str, Any]) -> tuple[CompletionBody, dict[str, Prompt]]:
        body = read_body(service, CompletionBody, json_body, ignored)
        service.require_model(body.model)
        return body, _prompts(service, body)

    body, prompts = await prepared(request, read)
    constraint = completion_constraint(body)
    asked = [
        AskedPrompt(rendered.tokens, num_added=_num_added(service, given, rendered))
        for rendered, given in zip(prompts.values(), body.prompt, strict=True)
    ]
    shown = frozenset[int]()
    if not body.skip_special_tokens:
        shown = frozenset(service.tokenizer.special_ids.values())
    order = Order(
        dialect=CompletionDialect(service.tokenizer, body, asked, shown),
        prompts=prompts,
        asked=asked,
        max_tokens=body.max_tokens,
        default_max_tokens=DEFAULT_MAX_TOKENS,
        logprobs=_logprobs(body),
        prompt_logprobs=_prompt_logprobs(body),
        num_drawn=body.num_drawn,
        num_told=body.n,
        grammar=await service.grammars.grammar(constraint) if constraint else None,
        shown_specials=shown,
        priority=body.priority,
        ignored=ignored,
    )
    return make_job(service, body, order)


def _prompts(service: Service, body: CompletionBody) -> dict[str, Prompt]:
    """By the name of their field."""
    vocab_size = service.loaded().vocab_size
    rendered = {}
    for index, prompt in enumerate(body.prompt):
        name = f"prompt[{index}]" if len(body.prompt) > 1 else "prompt"
        if isinstance(prompt, str):
            whole = render_completion(service.tokenizer, prompt)
        else:
            require_token_ids(prompt, vocab_size, name)
            whole = Prompt(prompt)
        rendered[name] = truncated(whole, body.truncate_prompt_tokens, name)
    return rendered


def _num_added(service: Service, given: str | list[int], prompt: Prompt) -> int:
    """A text gets a first token, which a truncation may have taken away again."""
    return int(isinstance(given, str) and prompt.tokens[0] == service.tokenizer.bos_id)


def _logprobs(body: CompletionBody) -> int | None:
    """Which of several completions is the best is seen from their log-probabilities."""
    ranks = body.num_drawn > body.n
    return 0 if ranks and body.logprobs is None else body.logprobs


def _prompt_logprobs(body: CompletionBody) -> int | None:
    """With `echo`, a prompt's tokens are listed as those behind it are."""
    wanted = [body.prompt_logprobs, body.logprobs if body.echo else None]
    return max((count for count in wanted if count is not None), default=None)
