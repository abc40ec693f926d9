"""Fixtures for all tiers, and the rule that GPU tests skip themselves where there is no GPU."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from caravan.worker import environment

environment.prepare()  # as the engine process does

import triton_device  # noqa: E402, F401 - before any kernel is imported: it may interpret them

MakeCheckpoint = Callable[..., Path]


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> MakeCheckpoint:
    """`tiny_llama4.write_checkpoint` without a directory; equal arguments give the same one."""
    written: dict[str, Path] = {}

    def make(variant: str = "scout", **arguments: Any) -> Path:
        from tiny_llama4 import write_checkpoint

        key = json.dumps([variant, arguments], sort_keys=True)
        if key not in written:
            directory = tmp_path_factory.mktemp(f"tiny-{variant}")
            written[key] = write_checkpoint(directory, variant, **arguments)
        return written[key]

    return make


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--run-clients",
        action="store_true",
        help="install real clients, and run their checks (minutes; needs PyPI and npm at first)",
    )
    parser.addoption(
        "--run-exam", action="store_true", help="ask the demo model the whole exam (minutes)"
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("--run-exam"):
        for item in items:
            if item.get_closest_marker("exam"):
                item.add_marker(pytest.mark.skip(reason="needs --run-exam"))
    gpu_items = [item for item in items if item.get_closest_marker("gpu")]
    if not gpu_items:
        return
    import torch

    if not torch.cuda.is_available():
        for item in gpu_items:
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))
