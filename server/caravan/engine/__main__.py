"""`python -m caravan.engine ADDRESS PARENT_PID`: the engine process. `launch.py` starts it."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from caravan import child_process, logs
from caravan.config import EngineConfig
from caravan.engine import loop
from caravan.engine.vocabulary import load_compiler
from caravan.worker import environment

if TYPE_CHECKING:
    from caravan.worker.runner import Runner


def load_runner(config: EngineConfig, directory: Path, report: loop.Report) -> Runner:
    """Imports torch here, where the parent already hears of whatever goes wrong."""
    size = config.model.tensor_parallel_size
    local_size = int(os.environ.get("LOCAL_WORLD_SIZE", size))
    environment.prepare(local_size)
    if size > 1 or "TORCHELASTIC_RUN_ID" in os.environ:
        from caravan.engine.ranks import load_split

        return load_split(config, directory, report)
    from caravan.worker.runner import Runner

    return Runner(config, directory, report)


def main() -> int:
    """The engine's life, from its start to its exit status."""
    child_process.obey_parent_only()
    logs.configure("engine")
    address, parent_pid = sys.argv[1:]
    return loop.run(address, int(parent_pid), load_runner, load_compiler)


if __name__ == "__main__":
    sys.exit(main())
