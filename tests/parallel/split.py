"""A model on several ranks of this machine, rank 0 of them in the test's own process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from caravan.config import CacheConfig, EngineConfig, ModelConfig
from caravan.engine.ranks import load_split
from caravan.worker.leading import LeadingRunner


def config(size: int) -> EngineConfig:
    """As `in_process.load` has it."""
    return EngineConfig(
        model=ModelConfig(dtype="float32", device="cpu", tensor_parallel_size=size),
        cache=CacheConfig(
            block_size=4, kv_cache_memory_bytes=64 << 20, image_cache_memory_bytes=1 << 20
        ),
    )


@contextmanager
def split(directory: Path, size: int) -> Iterator[LeadingRunner]:
    """Ends the ranks afterwards."""
    runner = load_split(config(size), directory, lambda message: None)
    try:
        yield runner
    finally:
        runner.close()
