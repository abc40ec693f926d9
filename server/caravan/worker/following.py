"""The life of ranks 1..N-1: join, load a part of the model, do what rank 0 says."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import msgspec
from torch.distributed import Store  # type: ignore[attr-defined]  # not in its __all__

from caravan.config import EngineConfig
from caravan.messages import Beat, Halt, Launch, Progress
from caravan.worker.channel import Channel
from caravan.worker.group import Group, Place, local_store
from caravan.worker.runner import Runner


class FollowerStart(msgspec.Struct, frozen=True):
    """rank 0 -> a process that it started: everything the process is told at its start."""

    config: EngineConfig
    directory: str
    rank: int
    port: int  # where the ranks meet


def follow_local(start: FollowerStart) -> None:
    """A rank that rank 0 started on its machine. Raises ConfigError or PeerLost."""
    size = start.config.model.tensor_parallel_size
    place = Place(start.rank, size, local_rank=start.rank, local_size=size)
    follow(start.config, Path(start.directory), place, local_store(start.port, is_host=False))


def follow(config: EngineConfig, directory: Path, place: Place, store: Store | None = None) -> None:
    """Joins, loads, and does what rank 0 does until it says Halt."""
    group = Group(place, timedelta(seconds=config.model.rank_timeout), store)
    runner = Runner(config, directory, _report, group)
    channel = Channel(group)
    while True:
        match channel.receive():
            case Launch(plan, masked):
                runner.launch(plan, channel.receive_masks if masked else None)
            case Halt():
                group.close()
                return
            case Beat():
                pass


def _report(progress: Progress) -> None:
    """Rank 0 reports for all."""
