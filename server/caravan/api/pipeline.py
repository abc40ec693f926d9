"""The way of a request that generates text, the same for chat and completions.

    read body -> prepare a Job (400) -> submit all of it (503) -> one JSON object, or a stream

Nothing of a 200 is sent before the job is submitted. The generations are closed whatever happens:
an error, a client that leaves, or the end.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from caravan.api.answer import Answer, Dialect
from caravan.api.body import json_response, prepared
from caravan.api.choices import Choice, Choices
from caravan.api.disconnect import unless_disconnected
from caravan.api.sampling import completion_len, resolve, seeded
from caravan.api.schema import SamplingBody
from caravan.api.service import Service, service_of
from caravan.api.stream import EventStream
from caravan.messages import Sampling
from caravan.text.detokenizer import Detokenizer


@dataclass(frozen=True, slots=True)
class Job:
    """What a request asks of the engine. Choice i of prompt p is submission p * n + i."""

    prompts: list[list[int]]
    submissions: list[tuple[list[int], Sampling]]
    detokenizers: list[Detokenizer]  # one for each submission
    body: SamplingBody
    dialect: Dialect


def make_job(
    service: Service,
    body: SamplingBody,
    dialect: Dialect,
    prompts: dict[str, list[int]],
    *,
    max_tokens: int | None,
    default_max_tokens: int | None,
    logprobs: int | None,
) -> Job:
    """`prompts` are token ids by the name of their field. Raises InvalidRequest's subclasses."""
    max_model_len = service.loaded().max_model_len
    submissions = []
    for param, prompt in prompts.items():
        length = completion_len(max_tokens, default_max_tokens, len(prompt), max_model_len, param)
        sampling = resolve(service, body, length, logprobs)
        submissions += [(prompt, choice) for choice in seeded(sampling, body.seed, body.n)]
    detokenizers = [
        Detokenizer(service.tokenizer, body.stop, min_tokens=body.min_tokens) for _ in submissions
    ]
    return Job(list(prompts.values()), submissions, detokenizers, body, dialect)


async def respond(request: Request, prepare: Callable[[Service, dict[str, Any]], Job]) -> Response:
    """The answer to a request whose JSON object `prepare` turns into a job."""
    arrived_s = time.perf_counter()
    service = service_of(request)
    job = await prepared(request, lambda body: prepare(service, body))
    answer = _start(service, job, arrived_s)
    if job.body.stream:
        options = job.body.stream_options
        return EventStream(
            answer,
            include_usage=options is not None and options.include_usage,
            ping_interval_s=service.config.ping_interval,
        )
    try:
        await unless_disconnected(request.receive, answer.choices.finish())
        return json_response(answer.whole())
    finally:
        answer.choices.close()


def _start(service: Service, job: Job, arrived_s: float) -> Answer:
    ready = service.loaded()
    generations = service.engine.submit(job.submissions)
    choices = [
        Choice(index, generation, detokenizer, service.metrics.start(arrived_s, len(prompt)))
        for index, (generation, detokenizer, (prompt, _)) in enumerate(
            zip(generations, job.detokenizers, job.submissions, strict=True)
        )
    ]
    prompt_lens = [len(prompt) for prompt in job.prompts]
    return Answer(job.dialect, Choices(choices), prompt_lens, service.model_name, ready.fingerprint)
