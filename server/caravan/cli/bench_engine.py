"""Runs synthetic workloads through an engine and compares decoding with its floor.

The floor of a decode step is the time to read what it reads: every weight outside the routed
experts (of the embedding only the rows used), the experts that were hit, and the keys and values.
With b requests and E experts a random router hits E * (1 - (1 - 1/E)^b) of them.
"""

from __future__ import annotations

import json
import platform
import random
import sys
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median

import torch
from rich.console import Console
from rich.table import Table

import caravan
from caravan.config import EngineConfig
from caravan.engine.engine import Engine
from caravan.errors import ConfigError
from caravan.messages import Generate, Sampling
from caravan.model.architecture import Architecture
from caravan.model.footprint import Footprint, footprint
from caravan.model.source import resolve_model
from caravan.scheduling.scheduler import Scheduler
from caravan.worker.runner import Runner

PROBE_BYTES = 1 << 30  # read to measure the memory: far more than any cache holds


@dataclass(frozen=True, slots=True)
class Workload:
    """So many requests at once, each with so many tokens in and out."""

    concurrency: int
    input_len: int
    output_len: int


@dataclass(frozen=True, slots=True)
class Figures:
    """What one run of a workload gave; times in seconds."""

    output_tokens_per_s: float  # over the whole run, prefill included
    ttft_s: float  # median over the requests
    tpot_s: float  # median over the requests
    floor_s: float  # of a decode step

    @property
    def share_of_floor(self) -> float:
        """1: decoding takes no longer than reading its memory."""
        return self.floor_s / self.tpot_s if self.tpot_s else 0.0


def measure(
    config: EngineConfig, workloads: list[Workload], repeats: int, json_file: Path | None
) -> None:
    """Prints a table of medians over `repeats` runs of each workload."""
    console = Console()
    directory = resolve_model(config.model.model, weights=config.model.load_format == "auto")
    architecture = Architecture.from_directory(directory)
    began = time.perf_counter()
    runner = Runner(config, directory, lambda progress: None)
    load_s = time.perf_counter() - began
    bandwidth = read_bandwidth(torch.device(runner.device))
    size = footprint(architecture, dtype=runner.dtype, block_len=config.cache.block_size)
    console.print(
        f"{config.model.model or 'demo model'}: {size.total_parameters / 1e9:.2f} B parameters, "
        f"{runner.dtype} on {runner.device}, loaded in {load_s:.1f} s; "
        f"memory reads {bandwidth / 1e9:.1f} GB/s",
        highlight=False,
    )
    results = []
    for workload in workloads:
        _check_fits(workload, runner)
        floor_s = decode_bytes(size, architecture, workload) / bandwidth
        runs = [_run(runner, config, workload, floor_s) for _ in range(repeats)]
        results.append((workload, _medians(runs)))
    console.print(_table(results))
    if json_file is not None:
        facts = {
            "command": sys.argv,
            "date": time.strftime("%Y-%m-%d"),
            "versions": _versions(),
            "load_s": load_s,
            "read_bytes_per_s": bandwidth,
            "results": [asdict(workload) | asdict(figures) for workload, figures in results],
        }
        json_file.write_text(json.dumps(facts, indent=2) + "\n")


def decode_bytes(size: Footprint, architecture: Architecture, workload: Workload) -> float:
    """Bytes that one decode step reads in the middle of the workload."""
    parts = dict(size.weight_bytes)
    embeddings = parts.pop("embeddings")
    if not architecture.tie_word_embeddings:
        embeddings = 0  # the head's weight is read whole, the table's only by rows
    experts = parts.pop("experts", 0)
    missed = (1 - 1 / max(1, architecture.num_experts)) ** workload.concurrency
    context = workload.input_len + workload.output_len // 2
    per_request = (
        size.full_bytes_per_token * context
        + size.chunked_bytes_per_token * size.layout.chunked_tokens(context)
    )
    return (
        sum(parts.values())
        + embeddings
        + experts * (1 - missed)
        + workload.concurrency * per_request
    )


def read_bandwidth(device: torch.device) -> float:
    """Bytes per second at which the device reads a large array: the best of five passes."""
    probe = torch.ones(PROBE_BYTES // 4, dtype=torch.float32, device=device)
    best = float("inf")
    for _ in range(5):
        began = time.perf_counter()
        probe.sum().item()
        best = min(best, time.perf_counter() - began)
    return PROBE_BYTES / best


def _check_fits(workload: Workload, runner: Runner) -> None:
    length = workload.input_len + workload.output_len
    if length > runner.max_model_len:
        raise ConfigError(
            f"--input-len plus --output-len is {length}; the context is {runner.max_model_len}"
        )


def _run(runner: Runner, config: EngineConfig, workload: Workload, floor_s: float) -> Figures:
    scheduler = Scheduler(runner.layout, runner.num_pages, config.scheduler, runner.tile_slots)
    engine = Engine(runner, scheduler)
    source = random.Random(0)
    sampling = Sampling(max_tokens=workload.output_len, temperature=0.0)
    first: dict[int, float] = {}
    last: dict[int, float] = {}
    began = time.perf_counter()
    base = time.monotonic_ns()  # rids never repeat in the life of a runner
    for i in range(workload.concurrency):
        prompt = [source.randrange(runner.vocab_size) for _ in range(workload.input_len)]
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
        floor_s=floor_s,
    )


def _medians(runs: list[Figures]) -> Figures:
    return replace(
        runs[0],
        output_tokens_per_s=median(run.output_tokens_per_s for run in runs),
        ttft_s=median(run.ttft_s for run in runs),
        tpot_s=median(run.tpot_s for run in runs),
    )


def _table(results: list[tuple[Workload, Figures]]) -> Table:
    table = Table()
    for heading in ("requests", "in", "out", "tokens/s", "TTFT ms", "TPOT ms", "% of floor"):
        table.add_column(heading, justify="right")
    for workload, figures in results:
        table.add_row(
            str(workload.concurrency),
            str(workload.input_len),
            str(workload.output_len),
            f"{figures.output_tokens_per_s:.1f}",
            f"{1e3 * figures.ttft_s:.1f}",
            f"{1e3 * figures.tpot_s:.2f}",
            f"{100 * figures.share_of_floor:.0f}",
        )
    return table


def _versions() -> dict[str, str]:
    return {
        "caravan": caravan.__version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "threads": str(torch.get_num_threads()),
    }
