"""`caravan serve` under torchrun, on every rank but the first: no API, one part of the model."""

from __future__ import annotations

import logging
import os
import signal

from caravan import logs
from caravan.config import EngineConfig
from caravan.model.source import resolve_model
from caravan.worker import environment

logger = logging.getLogger(__name__)


def follow(config: EngineConfig) -> int:
    """Does what rank 0 says until it has drained. Raises ConfigError."""
    environment.prepare(int(os.environ["LOCAL_WORLD_SIZE"]))
    from caravan.model.parallel import PeerLost
    from caravan.worker import following
    from caravan.worker.group import torchrun_place

    place = torchrun_place()
    assert place is not None, "torchrun starts it"
    logs.configure(f"rank{place.rank}")
    for number in (signal.SIGINT, signal.SIGTERM):  # rank 0 gets them too, and drains first
        signal.signal(number, signal.SIG_IGN)
    directory = resolve_model(config.model.model, weights=config.model.load_format == "auto")
    try:
        following.follow(config, directory, place)
    except PeerLost as error:
        logger.error("another rank is gone: %s", error)
        return 1
    return 0
