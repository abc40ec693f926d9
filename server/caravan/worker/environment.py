"""Settings of the process that have to be made before torch and numba are imported."""

from __future__ import annotations

import os

from caravan.user_cache import cache_directory


def prepare(local_ranks: int = 1) -> None:
    """Makes the settings, where the user has not made them. Raises ConfigError.

    `local_ranks` processes of a split model share this machine's cores.

    numba keeps compiled kernels beside their source by default and cannot be imported with them
    where that is read-only, as in many containers.
    """
    if "NUMBA_CACHE_DIR" not in os.environ:
        os.environ["NUMBA_CACHE_DIR"] = str(cache_directory() / "kernels")
    # PyTorch and numba keep a pool of OpenMP threads each and alternate several times in every
    # layer. A pool that spins on takes the other's cores: on busy ones a decode step took ten times
    # as long. One that sleeps at once costs some 30 us more for each of the step's 100 kernels. So
    # idle threads spin for some microseconds only.
    os.environ.setdefault("GOMP_SPINCOUNT", "5000")
    # Kernels count on fused multiply-adds: Triton's own default changes with 3.10.
    os.environ.setdefault("TRITON_DEFAULT_FP_FUSION", "1")
    if local_ranks > 1:
        threads = str(max(1, len(os.sched_getaffinity(0)) // local_ranks))
        for library in ("OMP", "NUMBA"):
            os.environ.setdefault(f"{library}_NUM_THREADS", threads)
