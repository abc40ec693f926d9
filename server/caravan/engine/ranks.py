"""The other processes of a split model: started, watched, and ended together.

The first of them that ends takes all others and the engine with it. Where rank 0 waits for a rank
that is gone, it usually learns of that at once; where it cannot (while the ranks meet, or inside a
collective of a GPU), the watch ends the process.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from pathlib import Path

import msgspec

from caravan.config import EngineConfig
from caravan.engine.loop import Report
from caravan.errors import CaravanError, ConfigError, RankError
from caravan.messages import Failed
from caravan.model.parallel import PeerLost
from caravan.worker.following import FollowerStart
from caravan.worker.group import Group, Place, local_store, torchrun_place
from caravan.worker.leading import LeadingRunner

logger = logging.getLogger(__name__)

CONFIG_STATUS = 2  # of a rank that cannot start as it was told to
_WATCH_S = 0.1  # between two looks
_GRACE_S = 2.0  # for rank 0 to notice by itself what the watch has seen
_LAST_WORDS_S = 0.5  # for the report to leave the process


def load_split(config: EngineConfig, directory: Path, report: Report) -> LeadingRunner:
    """Rank 0's runner, once all ranks are ready. Raises ConfigError, or RankError."""
    size, timeout_s = config.model.tensor_parallel_size, config.model.rank_timeout
    place, store = torchrun_place(), None
    blame: Callable[[], CaravanError] = partial(_gone, timeout_s)
    if place is None:
        host = local_store(0, is_host=True)
        place, store = Place(0, size, local_rank=0, local_size=size), host
        blame = LocalRanks(config, directory, host.port, report).blame
    try:
        group = Group(place, timedelta(seconds=timeout_s), store)
    except PeerLost as error:
        raise blame() from error
    return LeadingRunner(config, directory, report, group, blame)


def _gone(timeout_s: float) -> RankError:
    return RankError(
        f"a process of the split model is gone, or did not answer within {timeout_s:g} s "
        "(--rank-timeout); its own log may say why"
    )


class LocalRanks:
    """The processes of ranks 1..N-1 on this machine. They end with the one that started them."""

    def __init__(
        self, config: EngineConfig, directory: Path, port: int, report: Callable[[Failed], None]
    ) -> None:
        self._timeout_s = config.model.rank_timeout
        self._report = report
        self._first_end: CaravanError | None = None
        self._ended = threading.Event()
        self._processes = {
            rank: _start(FollowerStart(config, str(directory), rank, port))
            for rank in range(1, config.model.tensor_parallel_size)
        }
        threading.Thread(target=self._watch, name="rank-watch", daemon=True).start()

    def blame(self) -> CaravanError:
        """Why the group is broken: the process that ended first, if one did."""
        self._ended.wait(_GRACE_S / 2)
        return self._first_end or _gone(self._timeout_s)

    def _watch(self) -> None:
        """Until all have ended as they were told to, or one has not."""
        running = dict(self._processes)
        while running:
            for rank, process in list(running.items()):
                if process.poll() is not None:
                    del running[rank]
                    error = _reason(rank, process)
                    if error is not None:
                        self._end(error)
            time.sleep(_WATCH_S)

    def _end(self, error: CaravanError) -> None:
        """Ends this process, and the others with it, if that does not happen by itself."""
        self._first_end = error
        self._ended.set()
        time.sleep(_GRACE_S)
        logger.error("%s", error)
        is_user_error = isinstance(error, ConfigError)
        self._report(Failed(str(error), user_error=is_user_error))
        time.sleep(_LAST_WORDS_S)
        os._exit(CONFIG_STATUS if is_user_error else 1)


def _start(start: FollowerStart) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "caravan.worker", str(os.getpid())],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdin is not None
    with process.stdin as pipe:
        pipe.write(msgspec.msgpack.encode(start))
    return process


def _reason(rank: int, process: subprocess.Popen[bytes]) -> CaravanError | None:
    """Why a process ended; None if it was told to."""
    assert process.stdout is not None
    with process.stdout as pipe:
        said = pipe.read().decode(errors="replace")
    status = process.returncode
    if status == 0:
        return None
    if status == CONFIG_STATUS:
        return ConfigError(said)
    how = f"was killed by signal {-status}" if status < 0 else f"ended with status {status}"
    return RankError(f"rank {rank} of the split model (process {process.pid}) {how}")
