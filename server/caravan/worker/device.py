"""Which device the engine computes on."""

from __future__ import annotations

import torch

from caravan.config import Device
from caravan.errors import ConfigError


def pick_device(name: Device) -> torch.device:
    """The device that `--device` means here. Raises ConfigError if there is no such device."""
    has_gpu = torch.cuda.is_available()
    if name == "cuda" and not has_gpu:
        raise ConfigError("--device is cuda and PyTorch finds no GPU; use --device cpu")
    return torch.device("cuda" if has_gpu and name != "cpu" else "cpu")
