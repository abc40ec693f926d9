"""`python -m caravan.engine ADDRESS PARENT_PID`: the engine process. `launch.py` starts it."""

from __future__ import annotations

import ctypes
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from caravan import logs
from caravan.config import EngineConfig
from caravan.engine import loop
from caravan.messages import Progress
from caravan.worker import environment

if TYPE_CHECKING:
    from caravan.worker.runner import Runner

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def load_runner(
    config: EngineConfig, directory: Path, report: Callable[[Progress], None]
) -> Runner:
    """Imports torch here, where the parent already hears of whatever goes wrong."""
    environment.prepare()
    from caravan.worker.runner import Runner

    return Runner(config, directory, report)


def _die_with_parent() -> None:
    """On Linux the kernel ends this process with its parent, even inside a long load or step."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def main() -> int:
    """Ctrl-C and service managers signal the whole group; only the parent decides here."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    _die_with_parent()
    logs.configure("engine")
    address, parent_pid = sys.argv[1:]
    return loop.run(address, int(parent_pid), load_runner)


if __name__ == "__main__":
    sys.exit(main())
