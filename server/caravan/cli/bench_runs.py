"""A loaded model under one workload: requests with prompts, or requests that stand at a context."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from math import ceil
from statistics import median
from typing import TYPE_CHECKING

from caravan.cli import bench_context
from caravan.config import EngineConfig
from caravan.engine.engine import Engine
from caravan.messages import Generate, Sampling
from caravan.model.architecture import Architecture
from caravan.model.decode_floor import decode_bytes
from caravan.model.footprint import Footprint
from caravan.scheduling.scheduler import Scheduler

if TYPE_CHECKING:
    from caravan.worker.runner import Runner  # loads torch

WARM_UP_STEPS = 4  # of requests that stand at a context, before a step counts


@dataclass(frozen=True, slots=True)
class Workload:
    """So many requests at once, with prompts of `input_len`, or standing at a `context`."""

    concurrency: int
    output_len: int
    input_len: int | None = None  # tokens
    context: int | None = None  # tokens that a request has when it ends

    @property
    def longest(self) -> int:
        """Tokens of the longest request."""
        return self.context or (self.input_len or 0) + self.output_len

    def ends(self, chunk_len: int) -> list[int]:
        """Tokens of each request when it ends."""
        if self.context is None:
            return [self.longest] * self.concurrency
        return bench_context.spread(self.context, self.concurrency, chunk_len)


@dataclass(frozen=True, slots=True)
class Figures:
    """What one run of a workload gave; times in seconds."""

    output_tokens_per_s: float  # over the whole run, prompts included; a context has none
    ttft_s: float | None  # median over the requests
    tpot_s: float  # median over the requests
    step_p95_s: float | None  # of the decode steps at a context
    floor_s: float  # of a decode step in the middle of the output

    @property
    def share_of_floor(self) -> float:
        """1: decoding takes no longer than reading its memory."""
        return self.floor_s / self.tpot_s if self.tpot_s else 0.0


@dataclass(frozen=True, slots=True)
class Loaded:
    """A model in memory, and what its figures are compared with."""

    runner: Runner
    architecture: Architecture
    size: Footprint
    bytes_per_s: float  # of the device's memory

    def floor_s(self, workload: Workload) -> float:
        """Of a decode step in the middle of the output."""
        ends = workload.ends(self.runner.layout.chunk_len)
        middle = [end - workload.output_len // 2 for end in ends]
        return decode_bytes(self.size, self.architecture, middle) / self.bytes_per_s


class Bench:
    """One engine for all workloads, so that the worker learns when their requests have ended."""

    def __init__(self, loaded: Loaded, config: EngineConfig, workloads: Sequence[Workload]) -> None:
        runner = loaded.runner
        scheduler = config.scheduler.resolved(runner.device)
        if any(each.context for each in workloads):
            # contexts are planned at once; no step that computes is so wide
            wide = max(each.concurrency * (each.context or 0) for each in workloads)
            scheduler = replace(scheduler, max_num_batched_tokens=wide)
        self._loaded = loaded
        self._scheduler = Scheduler(runner.layout, runner.num_pages, scheduler, runner.tile_slots)
        self._engine = Engine(
            runner, self._scheduler, async_scheduling=bool(scheduler.async_scheduling)
        )

    def misfit(self, workload: Workload) -> str | None:
        """Why the cache cannot hold the workload's contexts at once, or None."""
        if workload.context is None:
            return None  # requests wait for one another's pages
        runner = self._loaded.runner
        ends = workload.ends(runner.layout.chunk_len)
        missing = bench_context.missing_pages(runner.layout, runner.num_pages, ends)
        if missing <= 0:
            return None
        gib = (missing * runner.layout.page_bytes) / 2**30
        return f"does not fit: the cache lacks {gib:.1f} GiB"

    def run(self, workload: Workload) -> Figures:
        """Runs the workload to its end."""
        if workload.context is None:
            return self._run_prompts(workload)
        return self._run_at_context(workload)

    def _run_prompts(self, workload: Workload) -> Figures:
        engine, runner = self._engine, self._loaded.runner
        source = random.Random(0)
        sampling = Sampling(max_tokens=workload.output_len, temperature=0.0)
        first: dict[int, float] = {}
        last: dict[int, float] = {}
        began = time.perf_counter()
        base = time.monotonic_ns()  # rids never repeat in the life of a runner
        for i in range(workload.concurrency):
            prompt = source.choices(range(runner.vocab_size), k=workload.input_len or 1)
            engine.add(Generate(base + i, prompt, sampling))
        while engine.has_work:
            output = engine.step()
            now = time.perf_counter()
            for delta in output.deltas if output else []:
                first.setdefault(delta.rid, now)
                last[delta.rid] = now
        total_s = max(last.values()) - began
        gaps = max(1, workload.output_len - 1)
        return Figures(
            output_tokens_per_s=workload.concurrency * workload.output_len / total_s,
            ttft_s=median(when - began for when in first.values()),
            tpot_s=median((last[rid] - when) / gaps for rid, when in first.items()),
            step_p95_s=None,
            floor_s=self._loaded.floor_s(workload),
        )

    def _run_at_context(self, workload: Workload) -> Figures:
        runner, warm = self._loaded.runner, WARM_UP_STEPS
        generated = warm + workload.output_len
        starts = [end - generated for end in workload.ends(runner.layout.chunk_len)]
        standing = bench_context.Standing(self._scheduler, runner.layout, runner.vocab_size)
        standing.fill(starts, generated)
        bench_context.fill_pages(runner, standing.pages.most_page() + 1)
        plan, primed = standing.first_plan()
        self._scheduler.update(plan, runner.launch(primed).result())
        marks: list[float] = []
        while len(marks) < generated:
            output = self._engine.step()
            if output is not None and output.deltas:
                marks.append(time.perf_counter())
        for rid in standing.tokens:
            self._engine.abort(rid)
        while self._engine.has_work:
            self._engine.step()
        marks = marks[warm - 1 :]
        steps = sorted(after - before for before, after in pairwise(marks))
        tpot_s = (marks[-1] - marks[0]) / len(steps)
        return Figures(
            output_tokens_per_s=workload.concurrency / tpot_s,
            ttft_s=None,
            tpot_s=tpot_s,
            step_p95_s=steps[ceil(0.95 * len(steps)) - 1],
            floor_s=self._loaded.floor_s(workload),
        )


def medians(runs: Sequence[Figures]) -> Figures:
    """Of each figure."""
    ttfts = [run.ttft_s for run in runs if run.ttft_s is not None]
    tails = [run.step_p95_s for run in runs if run.step_p95_s is not None]
    return Figures(
        output_tokens_per_s=median(run.output_tokens_per_s for run in runs),
        ttft_s=median(ttfts) if ttfts else None,
        tpot_s=median(run.tpot_s for run in runs),
        step_p95_s=median(tails) if tails else None,
        floor_s=runs[0].floor_s,
    )
