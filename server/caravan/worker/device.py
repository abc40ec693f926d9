"""Which device the engine computes on."""

from __future__ import annotations

import torch

from caravan.config import Device
from caravan.errors import ConfigError


def pick_device(name: Device, local_rank: int = 0, local_size: int = 1) -> torch.device:
    """The device that `--device` means here, for one of the ranks on this machine.

    Raises ConfigError if there is no such device, or fewer than ranks.
    """
    has_gpu = torch.cuda.is_available()
    if name == "cuda" and not has_gpu:
        raise ConfigError("--device is cuda and PyTorch finds no GPU; use --device cpu")
    if not has_gpu or name == "cpu":
        return torch.device("cpu")
    if local_size == 1:
        return torch.device("cuda")
    count = torch.cuda.device_count()
    if count < local_size:
        raise ConfigError(
            f"the model is split over {local_size} devices of this machine and PyTorch finds "
            f"{count} GPUs; lower --tensor-parallel-size, or use --device cpu"
        )
    device = torch.device("cuda", local_rank)
    torch.cuda.set_device(device)
    return device
