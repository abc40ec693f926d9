"""What the processes that the API process starts have in common: only it decides their end."""

from __future__ import annotations

import ctypes
import signal
import sys

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def obey_parent_only() -> None:
    """Ignores what service managers and Ctrl-C send to the whole group; ends with the parent.

    On Linux the kernel sees to that, even inside a long load, step or decode.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
