"""The processes that compute a step together: how one joins, and what they agree on.

Rank 0 lives in the engine process. The others are started by it on the same machine, or all of them
by torchrun on several. Two groups connect them: one on the CPU for plans and agreements, and one
for tensors, NCCL on GPUs and gloo on CPUs.
"""

from __future__ import annotations

import hashlib
import logging
import os
import sys
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch.distributed import Store, TCPStore  # type: ignore[attr-defined]  # not in its __all__

from caravan.errors import ConfigError
from caravan.model.one_shot import one_shot_sum
from caravan.model.parallel import PeerLost, TensorParallel, wait_for

# Ranks load their weights and compile their kernels at different speeds.
START_TIMEOUT = timedelta(minutes=30)
logger = logging.getLogger(__name__)

_LOOPBACK = "127.0.0.1"
_STARTED_BY_TORCHRUN = "TORCHELASTIC_RUN_ID"


@dataclass(frozen=True, slots=True)
class Place:
    """Which of the processes this is."""

    rank: int
    size: int
    local_rank: int  # among those on this machine
    local_size: int


ALONE = Place(rank=0, size=1, local_rank=0, local_size=1)


def torchrun_place() -> Place | None:
    """This process's place, if torchrun started it."""
    if _STARTED_BY_TORCHRUN not in os.environ:
        return None
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
    return Place(*(int(os.environ[name]) for name in names))


class Group:
    """A process's membership. Its methods raise PeerLost."""

    def __init__(self, place: Place, timeout: timedelta, store: Store | None) -> None:
        """Waits until all ranks have come; without a store torchrun's environment says where."""
        self.place = place
        self.timeout = timeout
        try:
            dist.init_process_group(
                "gloo",
                store=store,
                rank=place.rank,
                world_size=place.size,
                timeout=START_TIMEOUT,
            )
        except RuntimeError as error:
            raise PeerLost(str(error)) from error

    def tensors(self, device: torch.device, dtype: torch.dtype) -> TensorParallel:
        """The group for tensors on this device; it is patient until it gets a timeout."""
        place = self.place
        if device.type != "cuda":
            group = dist.new_group(backend="gloo", timeout=START_TIMEOUT)
            return TensorParallel(place.rank, place.size, group)
        group = dist.new_group(backend="nccl", timeout=START_TIMEOUT, device_id=device)
        one_shot = None
        if place.local_size == place.size:
            one_shot = one_shot_sum(place.rank, dtype, device, group)
            if not self.least(int(one_shot is not None)):
                one_shot = None
                logger.info("GPUs cannot read one another's memory here: sums go through NCCL")
        return TensorParallel(place.rank, place.size, group, one_shot)

    def least(self, value: int) -> int:
        """The least of all ranks' values."""
        found = torch.tensor([value])
        wait_for(dist.all_reduce(found, dist.ReduceOp.MIN, async_op=True), None)
        return int(found)

    def agree(self, facts: str) -> None:
        """Raises ConfigError on every rank if one has other facts than rank 0."""
        own = torch.frombuffer(
            bytearray(hashlib.sha256(facts.encode()).digest()), dtype=torch.uint8
        )
        first = own.clone()
        wait_for(dist.broadcast(first, src=0, async_op=True), None)
        if not self.least(int(torch.equal(own, first))):
            raise ConfigError(
                "the processes of the split model differ in model, flags or versions; start all of "
                "them with the same command, and the same files on every machine"
            )

    def broadcast(self, frame: torch.Tensor) -> None:
        """Rank 0's bytes to all, in place, within the timeout."""
        wait_for(dist.broadcast(frame, src=0, async_op=True), self.timeout)

    def close(self) -> None:
        """Leaves. Ranks that still wait for this one learn that it is gone."""
        dist.destroy_process_group()


def local_store(port: int, *, is_host: bool) -> TCPStore:
    """Where the ranks of one machine meet. The host passes 0 and tells the others its port."""
    if sys.platform == "linux":
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")  # or it listens where others can connect
    return TCPStore(_LOOPBACK, port, is_master=is_host, wait_for_workers=False)
