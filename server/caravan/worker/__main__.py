"""`python -m caravan.worker PARENT_PID`: one of ranks 1..N-1. `engine.ranks` starts it.

Standard input has a FollowerStart. Exit status 2: a ConfigError, whose message is on standard
output, for rank 0 to report.
"""

from __future__ import annotations

import logging
import os
import sys

import msgspec

from caravan import child_process, logs
from caravan.errors import ConfigError
from caravan.worker import environment

logger = logging.getLogger(__name__)


def main() -> int:
    """The rank's life, from its start to its exit status."""
    child_process.obey_parent_only()
    if os.getppid() != int(sys.argv[1]):
        return 0  # it ended before it could be obeyed
    frame = sys.stdin.buffer.read()
    environment.prepare(msgspec.msgpack.decode(frame)["config"]["model"]["tensor_parallel_size"])
    from caravan.worker.following import FollowerStart, follow_local

    start = msgspec.msgpack.decode(frame, type=FollowerStart)
    logs.configure(f"rank{start.rank}")
    try:
        follow_local(start)
    except ConfigError as error:
        sys.stdout.write(str(error))
        return 2
    except Exception:  # the process's outermost frame: rank 0 only learns that it is gone
        logger.exception("rank %d failed", start.rank)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
