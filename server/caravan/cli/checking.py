"""The table of `caravan check`: what a model takes, and whether it fits this machine."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from caravan.cli.gpu_kinds import GPUS, Gpu, decode_step_s
from caravan.config import EngineConfig
from caravan.model.architecture import Architecture
from caravan.model.footprint import Footprint, footprint
from caravan.model.manifest import check_checkpoint, served_architecture
from caravan.model.source import resolve_model
from caravan.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    import torch

    from caravan.worker.memory import CachePlan

_LABEL_WIDTH = 18  # characters
_CONTEXTS = (8192, 131_072, 1_048_576)  # tokens
_CONTEXTS_OF_STEPS = (1024, 8192, 131_072, 1_048_576)  # tokens
_ROWS_OF_STEPS = (1, 8, 64)  # requests


def check(config: EngineConfig) -> int:
    """Prints the table; returns the exit status. Reads no weight.

    Raises ConfigError for what `serve` would refuse, on this machine too.
    """
    device = _device(config)
    _, size = _show_model(config, device.type)
    plan = _plan(config, size, device)
    num_bytes = plan.num_pages * size.layout.page_bytes
    _show(
        [
            ("this machine", f"{device}, {_gib(num_bytes)} for the cache{_each(config)}"),
            ("longest context", f"{plan.max_model_len:,} tokens"),
        ]
    )
    return 0


def check_on(config: EngineConfig, gpu: str) -> int:
    """The same for as many GPUs of a kind as the model is split over; none need be there."""
    architecture, size = _show_model(config, "cuda")
    kind, tp_size = GPUS[gpu], config.model.tensor_parallel_size
    from caravan.worker.memory import plan_cache  # loads torch

    share = config.cache.gpu_memory_utilization
    plan = plan_cache(config, size, int(kind.memory_bytes * share))
    cache = plan.num_pages * size.layout.page_bytes
    rows = [
        (
            "on",
            f"{tp_size} x {gpu.upper()}, {_gib(kind.memory_bytes)} each, {share:.0%} of it used",
        ),
        ("room for the cache", f"{_gib(cache)}{_each(config)}"),
        ("longest context", f"{plan.max_model_len:,} tokens"),
    ]
    _show([*rows, *_step_rows(kind, size, architecture, plan, tp_size)])
    return 0


def _show_model(config: EngineConfig, device_type: str) -> tuple[Architecture, Footprint]:
    """Prints what the model is and takes, wherever it runs."""
    model, load_format = config.model.model, config.model.load_format
    directory = resolve_model(model, weights=False)
    described = Architecture.from_directory(directory)
    # of a Hub id only the description is fetched
    has_files = not model or Path(model).expanduser().is_dir()
    architecture = served_architecture(directory, load_format) if has_files else described
    dtype = architecture.dtype if config.model.dtype == "auto" else config.model.dtype
    size = footprint(
        architecture,
        dtype=dtype,
        block_len=config.cache.block_len(device_type),
        tp_size=config.model.tensor_parallel_size,
    )
    rows = [("model", str(directory)), *_rows(architecture, size, dtype)]
    if load_format == "auto":
        Tokenizer.from_directory(directory, architecture.vocab_size)
        files = "not checked: they are not fetched, because they are large"
        rows.insert(1, ("files", _files(directory, described) if has_files else files))
    if config.model.tensor_parallel_size > 1:
        rows.append(("", "weights and cache are those of each rank"))
    _show(rows)
    return architecture, size


def _each(config: EngineConfig) -> str:
    return " on each rank" if config.model.tensor_parallel_size > 1 else ""


def _step_rows(
    kind: Gpu, size: Footprint, architecture: Architecture, plan: CachePlan, tp_size: int
) -> Iterator[tuple[str, str]]:
    """The least time of a step, for some numbers of requests and contexts that fit."""
    label = "decode, at best"
    for context in _CONTEXTS_OF_STEPS:
        pages = size.layout.pages_needed(context)
        for rows in _ROWS_OF_STEPS:
            if context > plan.max_model_len or rows * pages > plan.num_pages:
                continue
            step_s = decode_step_s(kind, size, architecture, [context] * rows, tp_size)
            rate = f"{rows / step_s:,.0f} tokens/s"
            where = f"{rows} x {context:,} tokens"
            yield label, f"{where:<20} {step_s * 1e3:.2f} ms a step, {rate}"
            label = ""


def _device(config: EngineConfig) -> torch.device:
    """The device that the engine would take on this machine."""
    from caravan.worker.device import pick_device  # loads torch

    return pick_device(config.model.device, local_size=config.model.tensor_parallel_size)


def _plan(config: EngineConfig, size: Footprint, device: torch.device) -> CachePlan:
    """The cache that the engine would make on the device now."""
    from caravan.worker.memory import free_memory, plan_cache

    local_size = config.model.tensor_parallel_size
    return plan_cache(config, size, free_memory(config, device, local_size))


def _files(directory: Path, architecture: Architecture) -> str:
    """What the safetensors files hold. Raises CheckpointError if it does not fit config.json."""
    checkpoint = check_checkpoint(directory, architecture)
    text = f"{len(checkpoint.stored)} tensors, {_gib(checkpoint.num_bytes)}"
    if checkpoint.num_ignored:
        return f"{text}; {checkpoint.num_ignored} of a vision encoder are not read: text only"
    if architecture.vision is not None and not checkpoint.has_vision:
        return f"{text}; none of the vision encoder that config.json describes: text only"
    return text


def _images(architecture: Architecture) -> str:
    if architecture.vision is None:
        return "none: the model reads text only"
    layout = architecture.vision.tile_layout()
    most = layout.max_tiles if layout.max_tiles == 1 else layout.max_tiles + 1
    return (
        f"tiles of {layout.tile_size} pixels, {layout.tile_tokens} tokens each, at most {most} "
        "per image"
    )


def _show(rows: Iterable[tuple[str, str]]) -> None:
    for label, value in rows:
        sys.stdout.write(f"{label:<{_LABEL_WIDTH}} {value}\n")
    sys.stdout.flush()


def _rows(architecture: Architecture, size: Footprint, dtype: str) -> Iterator[tuple[str, str]]:
    num_chunked = sum(architecture.chunked)
    num_full = architecture.num_layers - num_chunked
    layers = f"{architecture.num_layers}: {num_chunked} chunked, {num_full} full"
    if num_moe := sum(architecture.moe):
        layers += f"; {num_moe} with {architecture.num_experts} experts each"
    yield "layers", layers
    yield "parameters", f"{size.total_parameters:,}"
    yield "weights", f"{_gib(size.total_weight_bytes)} in {dtype}"
    for part, num_bytes in size.weight_bytes.items():
        yield f"  {part}", _gib(num_bytes)
    yield "images", _images(architecture)
    yield "cache", f"{size.full_bytes_per_token:,} bytes per token of the context"
    chunk = f"{size.chunked_bytes_per_token:,} bytes per token of the current chunk"
    yield "", f"{chunk}, at most {size.layout.chunk_len:,} tokens"
    longest = size.max_position_embeddings
    for context in (*(c for c in _CONTEXTS if c < longest), longest):
        cache_bytes = size.layout.pages_needed(context) * size.layout.page_bytes
        total = _gib(size.total_weight_bytes + cache_bytes)
        yield f"{context:,} tokens", f"{_gib(cache_bytes)} of cache, {total} with the weights"


def _gib(num_bytes: float) -> str:
    return f"{num_bytes / 2**30:,.3f} GiB"
