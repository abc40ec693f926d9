"""The way of a request that generates text, the same for chat and completions.

    read body -> load pictures -> prepare a Job (400) -> submit all of it (503)
              -> one JSON object, or a stream

Nothing of a 200 is sent before the job is submitted. The generations are closed whatever happens:
an error, a client that leaves, or the end.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import Response

from caravan.api.answer import Answer, Dialect, PromptSize
from caravan.api.body import json_response
from caravan.api.choices import Choice, Choices
from caravan.api.disconnect import unless_disconnected
from caravan.api.sampling import completion_len, resolve, seeded
from caravan.api.schema import SamplingBody, StreamOptions
from caravan.api.service import Service, service_of
from caravan.api.stream import EventStream
from caravan.engine.handle import ShownImage, Submission
from caravan.text.detokenizer import Detokenizer
from caravan.text.prompt import Prompt
from caravan.tiles import TiledImage


@dataclass(frozen=True, slots=True)
class Job:
    """What a request asks of the engine. Choice i of prompt p is submission p * n + i."""

    prompts: list[PromptSize]
    submissions: list[Submission]
    detokenizers: list[Detokenizer]  # one for each submission
    dialect: Dialect
    stream: StreamOptions | None  # None: one JSON object


def make_job(
    service: Service,
    body: SamplingBody,
    dialect: Dialect,
    prompts: dict[str, Prompt],
    *,
    max_tokens: int | None,
    default_max_tokens: int | None,
    logprobs: int | None,
    images: Sequence[TiledImage] = (),
) -> Job:
    """`prompts` by the name of their field; each shows `images`. Raises InvalidRequest's kinds."""
    max_model_len = service.loaded().max_model_len
    submissions = []
    for param, prompt in prompts.items():
        tokens = prompt.tokens
        length = completion_len(max_tokens, default_max_tokens, len(tokens), max_model_len, param)
        sampling = resolve(service, body, length, logprobs)
        shown = list(map(ShownImage, images, prompt.tile_starts))
        assert len(shown) == len(images) == len(prompt.tile_starts), (len(images), prompt)
        submissions += [
            Submission(tokens, choice, shown) for choice in seeded(sampling, body.seed, body.n)
        ]
    return Job(
        prompts=[PromptSize(len(p.tokens), p.image_tokens) for p in prompts.values()],
        submissions=submissions,
        detokenizers=[
            Detokenizer(service.tokenizer, body.stop, min_tokens=body.min_tokens)
            for _ in submissions
        ],
        dialect=dialect,
        stream=(body.stream_options or StreamOptions()) if body.stream else None,
    )


async def respond(request: Request, prepare: Callable[[Request], Awaitable[Job]]) -> Response:
    """The answer to a request that `prepare` turns into a job."""
    answer, stream = await _start(request, prepare)
    if stream is not None:
        return EventStream(
            answer,
            include_usage=stream.include_usage,
            ping_interval_s=service_of(request).config.ping_interval,
        )
    try:
        await unless_disconnected(request.receive, answer.choices.finish())
        return json_response(answer.whole())
    finally:
        answer.choices.close()


async def _start(
    request: Request, prepare: Callable[[Request], Awaitable[Job]]
) -> tuple[Answer, StreamOptions | None]:
    """The job, with its pictures, is forgotten here: the answer may take minutes."""
    arrived_s = time.perf_counter()
    service = service_of(request)
    job = await prepare(request)
    ready = service.loaded()
    generations = service.engine.submit(job.submissions)
    choices = [
        Choice(index, generation, detokenizer, service.metrics.start(arrived_s, len(prompt)))
        for index, (generation, detokenizer, (prompt, _, _)) in enumerate(
            zip(generations, job.detokenizers, job.submissions, strict=True)
        )
    ]
    answer = Answer(
        job.dialect, Choices(choices), job.prompts, service.model_name, ready.fingerprint
    )
    return answer, job.stream
