"""Loads a model, runs workloads through an engine, and prints how near decoding is to its floor."""

from __future__ import annotations

import json
import platform
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

import caravan
from caravan.cli.bench_layers import FIT, most_layers, shortened, write_shortened
from caravan.cli.bench_runs import WARM_UP_STEPS, Bench, Figures, Loaded, Workload, medians
from caravan.config import EngineConfig
from caravan.errors import ConfigError
from caravan.model.architecture import Architecture
from caravan.model.decode_floor import hit_experts
from caravan.model.footprint import footprint
from caravan.model.manifest import served_architecture
from caravan.model.source import resolve_model
from caravan.worker.device import pick_device
from caravan.worker.memory import free_memory
from caravan.worker.runner import Runner

PROBE_BYTES = 1 << 30  # far more than any cache holds
PROBES = 5

Result = tuple[Workload, Figures | str]  # or why there are none


def measure(
    config: EngineConfig,
    workloads: Sequence[Workload],
    repeats: int,
    layers: str | None,
    budget_s: float,
) -> dict[str, Any]:
    """Prints a table of medians over `repeats` runs of each workload; returns all figures.

    A workload whose contexts do not fit, or that `budget_s` has no time for, is named instead.
    """
    if config.model.tensor_parallel_size != 1:
        raise ConfigError(
            f"--tensor-parallel-size is {config.model.tensor_parallel_size}; bench engine measures "
            "one device: leave the flag out"
        )
    console = Console()
    deadline = time.monotonic() + budget_s
    with _model_directory(config, layers) as (directory, all_layers):
        loaded, load_s = _load(config, directory)
    console.print(_described(config, loaded, all_layers, load_s), highlight=False)
    for workload in workloads:
        _check(workload, config, loaded.runner)
    bench = Bench(loaded, config, workloads)
    results = [(each, _result(bench, each, repeats, deadline)) for each in workloads]
    console.print(_table(results))
    for workload, result in results:
        if isinstance(result, str):
            where = f"at {workload.context}" if workload.context else f"of {workload.input_len}"
            console.print(f"{workload.concurrency} {where}: {result}", highlight=False)
    return {
        "command": sys.argv,
        "date": time.strftime("%Y-%m-%d"),
        "versions": _versions(loaded.runner.device),
        "load_s": load_s,
        "layers": loaded.architecture.num_layers,
        "layers_of_model": all_layers,
        "memory_bytes_per_s": loaded.bytes_per_s,
        "results": [_facts(workload, result, loaded) for workload, result in results],
    }


@contextmanager
def _model_directory(config: EngineConfig, layers: str | None) -> Iterator[tuple[Path, int]]:
    """The model's directory, or one of its first layers only; and how many layers it has."""
    load_format = config.model.load_format
    directory = resolve_model(config.model.model, weights=load_format == "auto")
    architecture = served_architecture(directory, load_format)
    if layers is None:
        yield directory, architecture.num_layers
        return
    if load_format != "dummy":
        raise ConfigError("--layers shortens a model of random weights; add --load-format dummy")
    if layers == FIT:
        device = pick_device(config.model.device)
        count = most_layers(architecture, config, device.type, free_memory(config, device))
    else:
        count = shortened(architecture, int(layers)).num_layers
    with tempfile.TemporaryDirectory() as target:
        write_shortened(directory, count, Path(target))
        yield Path(target), architecture.num_layers


def _load(config: EngineConfig, directory: Path) -> tuple[Loaded, float]:
    """The model, and the seconds until it could have served."""
    architecture: Architecture = served_architecture(directory, config.model.load_format)
    began = time.perf_counter()
    runner = Runner(config, directory, lambda progress: None)
    load_s = time.perf_counter() - began
    size = footprint(architecture, dtype=runner.dtype, block_len=runner.layout.block_len)
    rate = memory_rate(torch.device(runner.device))
    return Loaded(runner, architecture, size, rate), load_s


def memory_rate(device: torch.device) -> float:
    """Bytes per second: of a GPU's copies, counting both ends; of the CPU's reads; the best."""
    probe = torch.ones(PROBE_BYTES // 4, dtype=torch.float32, device=device)
    if device.type != "cuda":
        return PROBE_BYTES / min(_probe_s(probe) for _ in range(PROBES))
    target = torch.empty_like(probe)
    return 2 * PROBE_BYTES / min(_copy_s(target, probe) for _ in range(PROBES))


def _probe_s(probe: torch.Tensor) -> float:
    began = time.perf_counter()
    probe.sum().item()
    return time.perf_counter() - began


def _copy_s(target: torch.Tensor, source: torch.Tensor) -> float:
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    target.copy_(source)
    end.record()
    end.synchronize()
    milliseconds: float = start.elapsed_time(end)
    return 1e-3 * milliseconds


def _check(workload: Workload, config: EngineConfig, runner: Runner) -> None:
    """Raises ConfigError for a workload that no memory could hold."""
    longest, context = workload.longest, workload.context
    if longest > runner.max_model_len:
        raise ConfigError(
            f"{'--context' if context else '--input-len plus --output-len'} is {longest}; "
            f"the longest context is {runner.max_model_len}"
        )
    if context is None:
        return
    least = workload.output_len + WARM_UP_STEPS + 2
    if context < least:
        raise ConfigError(f"--context is {context}; with this --output-len the least is {least}")
    if workload.concurrency > config.scheduler.max_num_seqs:
        raise ConfigError(
            f"--concurrency is {workload.concurrency}; requests that stand at a context all run, "
            f"and --max-num-seqs is {config.scheduler.max_num_seqs}"
        )


def _result(bench: Bench, workload: Workload, repeats: int, deadline: float) -> Figures | str:
    if time.monotonic() > deadline:
        return "skipped: the time is spent"
    if note := bench.misfit(workload):
        return note
    runs: list[Figures] = []
    while len(runs) < repeats and (not runs or time.monotonic() < deadline):
        runs.append(bench.run(workload))
    return medians(runs)


def _described(config: EngineConfig, loaded: Loaded, all_layers: int, load_s: float) -> str:
    runner, num_layers = loaded.runner, loaded.architecture.num_layers
    layers = f", {num_layers} of {all_layers} layers" if num_layers < all_layers else ""
    cache = runner.num_pages * runner.layout.page_bytes / 2**30
    how = "reads" if runner.device == "cpu" else "copies"
    return (
        f"{config.model.model or 'demo model'}: "
        f"{loaded.size.total_parameters / 1e9:.2f} B parameters{layers}, {runner.dtype} on "
        f"{runner.device}, {cache:.1f} GiB of cache, loaded in {load_s:.1f} s; "
        f"memory {how} {loaded.bytes_per_s / 1e9:.1f} GB/s"
    )


def _table(results: Sequence[Result]) -> Table:
    table = Table()
    at_context = any(workload.context for workload, _ in results)
    place, latency = ("context", "p95 ms") if at_context else ("in", "TTFT ms")
    for heading in ("requests", place, "out", "tokens/s", latency, "TPOT ms", "% of floor"):
        table.add_column(heading, justify="right")
    for workload, result in results:
        sizes = (workload.concurrency, workload.context or workload.input_len, workload.output_len)
        table.add_row(*map(str, sizes), *_columns(result))
    return table


def _columns(result: Figures | str) -> tuple[str, ...]:
    if isinstance(result, str):
        return ()
    latency_s = result.step_p95_s if result.ttft_s is None else result.ttft_s
    return (
        f"{result.output_tokens_per_s:.1f}",
        f"{1e3 * (latency_s or 0.0):.2f}",
        f"{1e3 * result.tpot_s:.2f}",
        f"{100 * result.share_of_floor:.0f}",
    )


def _facts(workload: Workload, result: Figures | str, loaded: Loaded) -> dict[str, Any]:
    """Of one workload. The experts are expected, not counted: see `model.decode_floor`."""
    experts = hit_experts(loaded.architecture.num_experts, workload.concurrency)
    facts = {**asdict(workload), "expected_experts": experts}
    if isinstance(result, str):
        return {**facts, "note": result}
    return {**facts, **asdict(result), "share_of_floor": result.share_of_floor}


def _versions(device: str) -> dict[str, str]:
    versions = {
        "caravan": caravan.__version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "threads": str(torch.get_num_threads()),
    }
    if device != "cpu":
        import triton  # PyTorch's CPU build lacks it

        versions |= {"triton": triton.__version__, "gpu": torch.cuda.get_device_name(device)}
    return versions


def write_json(path: Path, facts: dict[str, Any]) -> None:
    """Writes what `measure` returned."""
    path.write_text(json.dumps(facts, indent=2) + "\n")
