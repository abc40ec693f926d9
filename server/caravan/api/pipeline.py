"""The way of a request that generates text, the same for chat and completions.

    read body -> load pictures -> check the grammar -> make a Job (400) -> submit all of it (503)
              -> one JSON object, or a stream

Nothing of a 200 is sent before the job is submitted. The generations are closed whatever happens:
an error, a client that leaves, or the end.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar
from urllib.parse import quote

import msgspec
from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response

from caravan.api.answer import Answer, Dialect, Json
from caravan.api.body import json_response
from caravan.api.choices import AskedPrompt, Choice, Choices, Wishes
from caravan.api.disconnect import unless_disconnected
from caravan.api.sampling import completion_len, resolve, seeded
from caravan.api.schema.sampling import SamplingBody, StreamOptions
from caravan.api.service import Service, service_of
from caravan.api.stream import EventStream
from caravan.api.validation import shown, validated
from caravan.engine.handle import ShownImage, Submission
from caravan.messages import Sampling
from caravan.text.detokenizer import Detokenizer
from caravan.text.prompt import Prompt
from caravan.tiles import TiledImage

log = logging.getLogger(__name__)

IGNORED_HEADER = "x-caravan-ignored-fields"

AnyBody = TypeVar("AnyBody", bound=BaseModel)


class Ignored(list[str]):
    """The fields of one body that are neither obeyed nor refused."""

    @property
    def headers(self) -> dict[str, str]:
        """That say so. Headers are ASCII, and names may be anything: they are percent-encoded."""
        return {IGNORED_HEADER: ", ".join(quote(name, safe="[]") for name in self)} if self else {}


def read_body(
    service: Service, model: type[AnyBody], json_body: dict[str, Any], ignored: Ignored
) -> AnyBody:
    """Validates as strictly as the server is configured. Raises InvalidRequest's subclasses."""
    lenient = service.config.ignore_unknown_fields
    return validated(model, json_body, ignored if lenient else None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What an endpoint makes of its body."""

    dialect: Dialect
    prompts: Mapping[str, Prompt]  # by the name of their field; each shows `images`
    asked: Sequence[AskedPrompt]  # the same
    images: Sequence[TiledImage] = ()
    max_tokens: int | None  # 0: the prompt's log-probabilities only
    default_max_tokens: int | None
    logprobs: int | None = None  # of generated tokens
    prompt_logprobs: int | None = None
    num_drawn: int  # choices of each prompt
    num_told: int
    grammar: str | None = None
    shown_specials: frozenset[int] = frozenset()
    priority: int = 0
    head: Json = field(default_factory=dict)
    ignored: Ignored


@dataclass(frozen=True, slots=True)
class Job:
    """What a request asks of the engine. Choice i of prompt p is submission p * n + i."""

    order: Order
    submissions: list[Submission]
    detokenizers: list[Detokenizer]  # one for each submission
    wishes: Wishes
    stream: StreamOptions | None  # None: one JSON object


def make_job(service: Service, body: SamplingBody, order: Order) -> Job:
    """Raises InvalidRequest's kinds."""
    if body.user is not None:
        log.info("for the user %s", shown(body.user))
    submissions: list[Submission] = []
    for param, prompt in order.prompts.items():
        submissions += _submissions(service, body, order, param, prompt, len(submissions))
    return Job(
        order=order,
        submissions=submissions,
        detokenizers=[
            Detokenizer(
                service.tokenizer,
                body.stop,
                min_tokens=body.min_tokens,
                shown=order.shown_specials,
                include_stop=body.include_stop_str_in_output,
            )
            for _ in submissions
        ],
        wishes=Wishes(token_ids=body.return_token_ids, output=order.max_tokens != 0),
        stream=(body.stream_options or StreamOptions()) if body.stream else None,
    )


def _submissions(
    service: Service,
    body: SamplingBody,
    order: Order,
    param: str,
    prompt: Prompt,
    first: int,
) -> list[Submission]:
    """The choices of one prompt; the first of them, of this index, computes it for all."""
    tokens = prompt.tokens
    length = completion_len(
        1 if order.max_tokens == 0 else order.max_tokens,
        order.default_max_tokens,
        len(tokens),
        service.loaded().max_model_len,
        param,
    )
    images = list(map(ShownImage, order.images, prompt.tile_starts))
    assert len(images) == len(order.images) == len(prompt.tile_starts), (len(images), prompt)
    samplings = seeded(resolve(service, body, length, order.logprobs), body.seed, order.num_drawn)
    return [
        Submission(
            tokens,
            _asking(sampling, None if choice else order.prompt_logprobs),
            images,
            prompt_of=first if choice else None,
            priority=order.priority,
            grammar=order.grammar,
        )
        for choice, sampling in enumerate(samplings)
    ]


def _asking(sampling: Sampling, prompt_logprobs: int | None) -> Sampling:
    if prompt_logprobs is None:
        return sampling
    return msgspec.structs.replace(sampling, prompt_logprobs=prompt_logprobs)


async def respond(request: Request, prepare: Callable[[Request], Awaitable[Job]]) -> Response:
    """The answer to a request that `prepare` turns into a job."""
    answer, stream, headers = await _start(request, prepare)
    if stream is not None:
        return EventStream(
            answer,
            stream,
            ping_interval_s=service_of(request).config.ping_interval,
            headers=headers,
        )
    try:
        await unless_disconnected(request.receive, answer.choices.finish())
        return json_response(answer.whole(), headers=headers)
    finally:
        answer.choices.close()


async def _start(
    request: Request, prepare: Callable[[Request], Awaitable[Job]]
) -> tuple[Answer, StreamOptions | None, dict[str, str]]:
    """The job, with its pictures, is forgotten here: the answer may take minutes."""
    arrived_s = time.perf_counter()
    service = service_of(request)
    job = await prepare(request)
    order = job.order
    ready = service.loaded()
    generations = service.engine.submit(job.submissions)
    choices = [
        Choice(
            index,
            generation,
            detokenizer,
            service.metrics.start(arrived_s, len(submission.prompt)),
            order.asked[index // order.num_drawn],
            job.wishes,
        )
        for index, (generation, detokenizer, submission) in enumerate(
            zip(generations, job.detokenizers, job.submissions, strict=True)
        )
    ]
    head = {"model": service.model_name, "system_fingerprint": ready.fingerprint, **order.head}
    answer = Answer(order.dialect, Choices(choices), order.asked, order.num_told, head)
    return answer, job.stream, order.ignored.headers
