"""Timing in pairs: machines are noisy, two runs side by side see the same noise."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median


def pairs(
    first: Callable[[], object], second: Callable[[], object], repeats: int
) -> tuple[float, float, float]:
    """Median seconds of each, and the median ratio second / first, after one pair to warm up."""
    times = []
    for _ in range(repeats + 1):
        started = time.perf_counter()
        first()
        between = time.perf_counter()
        second()
        times.append((between - started, time.perf_counter() - between))
    times = times[1:]
    return (
        median(a for a, _ in times),
        median(b for _, b in times),
        median(b / a for a, b in times),
    )
