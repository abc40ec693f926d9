"""Caravan's engine inside the test's own process: requests in, tokens out."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from caravan.config import CacheConfig, Device, Dtype, EngineConfig, ModelConfig, SchedulerConfig
from caravan.engine.engine import Engine
from caravan.engine.handle import Submission
from caravan.messages import Generate, Image, PlacedImage, Sampling, TokenLogprobs
from caravan.scheduling.scheduler import Scheduler
from caravan.worker.runner import Runner


@dataclass
class Completion:
    """What a request has produced so far."""

    tokens: list[int] = field(default_factory=list)
    logprobs: list[TokenLogprobs] = field(default_factory=list)
    prompt_logprobs: list[TokenLogprobs] = field(default_factory=list)
    cached_tokens: int = 0
    finish: str | None = None


def load(
    directory: Path,
    *,
    block_size: int = 4,
    max_model_len: int | None = None,
    image_cache_bytes: int = 1 << 20,
    device: Device = "cpu",
    dtype: Dtype = "float32",
    enforce_eager: bool = False,
) -> Runner:
    config = EngineConfig(
        model=ModelConfig(
            dtype=dtype, device=device, max_model_len=max_model_len, enforce_eager=enforce_eager
        ),
        cache=CacheConfig(
            block_size=block_size,
            kv_cache_memory_bytes=64 << 20,
            image_cache_memory_bytes=image_cache_bytes,
        ),
    )
    return Runner(config, directory, lambda progress: None)


def new_scheduler(
    runner: Runner,
    *,
    num_pages: int | None = None,
    budget: int = 2048,
    tile_budget: int = 16,
    max_num_seqs: int = 64,
) -> Scheduler:
    """Over the runner's arena, or over its first `num_pages` pages."""
    config = SchedulerConfig(
        max_num_seqs=max_num_seqs,
        max_num_batched_tokens=budget,
        max_num_batched_tiles=tile_budget,
    )
    return Scheduler(runner.layout, num_pages or runner.num_pages, config, runner.tile_slots)


def new_engine(runner: Runner, *, async_scheduling: bool = False, **limits: int | None) -> Engine:
    """With a fresh scheduler."""
    scheduler = new_scheduler(runner, **limits)  # type: ignore[arg-type]  # None: all pages
    return Engine(runner, scheduler, async_scheduling=async_scheduling)


_ids = itertools.count()  # engines share a runner, which forgets a request with the next plan


def complete(
    engine: Engine, prompts: Sequence[Sequence[int]], sampling: Sampling | Sequence[Sampling]
) -> list[Completion]:
    """Runs all prompts to their end; every page is back afterwards."""
    samplings = [sampling] * len(prompts) if isinstance(sampling, Sampling) else sampling
    return complete_all(engine, list(map(Submission, map(list, prompts), samplings)))


def complete_all(engine: Engine, submissions: Sequence[Submission]) -> list[Completion]:
    """The same for prompts that may show pictures, or be the prompt of an earlier one."""
    completions: dict[int, Completion] = {}
    rids = [next(_ids) for _ in submissions]
    for rid, submission in zip(rids, submissions, strict=True):
        prompt, sampling, images, prompt_of, *_ = submission
        placed = []
        for image, tile_starts in images:
            image_id = next(_ids)
            engine.add_image(Image(image_id, image.key, list(image.tiles), num_requests=1))
            placed.append(PlacedImage(image_id, tile_starts))
        completions[rid] = Completion()
        group = rid if prompt_of is None else rids[prompt_of]
        engine.add(Generate(rid, prompt, sampling, placed, group=group))
    while engine.has_work:
        output = engine.step()
        for delta in output.deltas if output else []:
            completion = completions[delta.rid]
            assert completion.finish is None, delta
            completion.tokens += delta.tokens
            completion.logprobs += delta.logprobs or []
            completion.prompt_logprobs += delta.prompt_logprobs or []
            completion.cached_tokens = max(completion.cached_tokens, delta.cached_tokens)
            completion.finish = delta.finish
    stats = engine.stats
    assert (stats.running, stats.waiting, stats.pages_owned) == (0, 0, 0), stats
    assert all(completion.finish for completion in completions.values())
    return list(completions.values())
