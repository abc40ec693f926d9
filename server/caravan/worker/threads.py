"""How this process's threads share the cores. Imports nothing: it has to come before torch."""

from __future__ import annotations

import os


def take_turns() -> None:
    """Lets idle OpenMP threads spin for some microseconds only. Call before torch is imported.

    PyTorch and numba keep a pool each and alternate several times in every layer. A pool that
    spins on takes the other's cores: 600 ms instead of 50 for a decode step on two busy cores.
    One that sleeps at once costs 30 us more for each of the step's 100 kernels.
    """
    os.environ.setdefault("GOMP_SPINCOUNT", "5000")
