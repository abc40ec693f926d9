"""`caravan check`: what a model takes, and whether it fits this machine. Reads no weight."""

from __future__ import annotations

import argparse
import sys

from rich.console import Console
from rich.table import Table

from caravan.cli.flags import Subparsers, add_flags, add_model, read
from caravan.config import CacheConfig, EngineConfig, ModelConfig, SchedulerConfig
from caravan.model.architecture import Architecture
from caravan.model.footprint import Footprint, footprint
from caravan.model.manifest import check_checkpoint
from caravan.model.source import resolve_model

_CONTEXTS = (8192, 131_072, 1_048_576)  # tokens


def add_parser(subparsers: Subparsers) -> None:
    """Adds `check`."""
    parser = subparsers.add_parser(
        "check",
        help="show what a model takes",
        description="Shows what would be loaded, the memory it takes, and the longest context.",
    )
    add_model(parser)
    for config in (ModelConfig, CacheConfig, SchedulerConfig):
        add_flags(parser, config)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Prints the table. Raises ConfigError for what `serve` would refuse, on this machine too."""
    config = EngineConfig(
        model=read(arguments, ModelConfig),
        cache=read(arguments, CacheConfig),
        scheduler=read(arguments, SchedulerConfig),
    )
    # A Hub id's weights are large: only its description is fetched, so its files go unchecked.
    directory = resolve_model(config.model.model, weights=False)
    architecture = Architecture.from_directory(directory)
    dtype = architecture.dtype if config.model.dtype == "auto" else config.model.dtype
    size = footprint(
        architecture,
        dtype=dtype,
        block_len=config.cache.block_size,
        tp_size=config.model.tensor_parallel_size,
    )
    if config.model.load_format == "auto" and any(directory.glob("*.safetensors")):
        check_checkpoint(directory, architecture)
    table = Table("", "", box=None, show_header=False, pad_edge=False)
    for label, value in (("model", str(directory)), *_rows(architecture, size, dtype)):
        table.add_row(label, value)
    console = Console(soft_wrap=True) if not sys.stdout.isatty() else Console()
    console.print(table)
    return 0


def _rows(architecture: Architecture, size: Footprint, dtype: str) -> list[tuple[str, str]]:
    num_chunked = sum(architecture.chunked)
    num_moe = sum(architecture.moe)
    rows = [
        (
            "layers",
            f"{architecture.num_layers}: {num_chunked} chunked, "
            f"{architecture.num_layers - num_chunked} full; {num_moe} with "
            f"{architecture.num_experts} experts",
        ),
        ("parameters", f"{size.total_parameters:,}"),
        (f"weights in {dtype}", _gib(size.total_weight_bytes)),
        *((f"  {part}", _gib(num_bytes)) for part, num_bytes in size.weight_bytes.items()),
        ("cache per token", f"{size.full_bytes_per_token:,} bytes for ever"),
        (
            f"  in the last {size.layout.chunk_len:,}",
            f"{size.chunked_bytes_per_token:,} bytes more",
        ),
    ]
    longest = size.max_position_embeddings
    for context in (*(c for c in _CONTEXTS if c < longest), longest):
        cache_bytes = size.layout.pages_needed(context) * size.layout.page_bytes
        total = _gib(size.total_weight_bytes + cache_bytes)
        rows.append((f"{context:,} tokens take", f"{_gib(cache_bytes)} of cache, {total} in all"))
    return rows


def _gib(num_bytes: int) -> str:
    return f"{num_bytes / 2**30:,.3f} GiB"
