"""How this process's threads share the cores. Imports nothing: it has to come before torch."""

from __future__ import annotations

import os


def take_turns() -> None:
    """Makes idle OpenMP threads sleep instead of spin. Call before torch is first imported.

    PyTorch and numba keep a pool each and alternate several times in every layer; a pool that
    spins while the other works takes its cores (a decode step was 10 times slower).
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
