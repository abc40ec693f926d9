"""What is loaded, where and how much of it: decided before any weight is read."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import torch

import caravan
from caravan.config import EngineConfig
from caravan.errors import ConfigError
from caravan.kv_layout import KVLayout
from caravan.model.architecture import Architecture, WeightDtype
from caravan.model.footprint import footprint
from caravan.model.manifest import served_architecture
from caravan.worker.device import pick_device
from caravan.worker.group import ALONE, Group, Place
from caravan.worker.memory import CachePlan, free_memory, plan_cache


@dataclass(frozen=True, slots=True)
class Fit:
    """A model on its device, or one rank's part of it."""

    architecture: Architecture  # of the whole model
    device: torch.device
    dtype_name: WeightDtype
    layout: KVLayout  # on one rank
    cache: CachePlan
    fingerprint: str  # of everything that could change the tokens of the same request

    @property
    def dtype(self) -> torch.dtype:
        """Of weights, activations and cache."""
        found: torch.dtype = getattr(torch, self.dtype_name)
        return found


def fit(config: EngineConfig, directory: Path, group: Group | None) -> Fit:
    """The same on all ranks of a group. Raises ConfigError for what cannot be loaded."""
    architecture = served_architecture(directory, config.model.load_format)
    place = group.place if group else ALONE
    device = pick_device(config.model.device, place.local_rank, place.local_size)
    dtype = architecture.dtype if config.model.dtype == "auto" else config.model.dtype
    block_len = config.cache.block_len(device.type)
    size = footprint(architecture, dtype=dtype, block_len=block_len, tp_size=place.size)
    fingerprint = _fingerprint(architecture, directory, dtype, device.type, place.size)
    free_bytes = free_memory(config, device, place.local_size)
    if group:
        group.agree(f"{fingerprint} {config}")
        _check_size(config, place)
        free_bytes = group.least(free_bytes)
    cache = plan_cache(config, size, free_bytes)
    return Fit(architecture, device, dtype, size.layout, cache, fingerprint)


def _check_size(config: EngineConfig, place: Place) -> None:
    size = config.model.tensor_parallel_size
    if size != place.size:
        raise ConfigError(
            f"torchrun started {place.size} processes and --tensor-parallel-size is {size}; they "
            "must be equal"
        )


def _fingerprint(
    architecture: Architecture, directory: Path, dtype: str, device: str, tp_size: int
) -> str:
    weights = sorted((p.name, p.stat().st_size) for p in directory.glob("*.safetensors"))
    facts = (
        caravan.__version__,
        torch.__version__,
        architecture,
        weights,
        dtype,
        device,
        tp_size,
    )
    return "fp_" + hashlib.sha256(repr(facts).encode()).hexdigest()[:12]
