"""Times the host's part of a decode step, without a model: what a GPU's step has to hide.

    python kernels/bench/host_step.py [--requests 256] [--context 4096] [--json FILE]

Of each step: `schedule` plans it; `lay out` makes the numbers that are sent, padding included;
`parameters` gathers the sampling parameters; `update` takes the tokens and makes the deltas. With
steps launched ahead all of it runs while the device computes, so it must stay below the shortest
step of that many requests (performance.md 3.1 allows 200 us for 256).
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from pathlib import Path
from statistics import median

import numpy as np
import torch
from results_file import write_results

from caravan.config import SchedulerConfig
from caravan.kv_layout import KVLayout
from caravan.messages import Generate, Sampled, Sampling, StepResult
from caravan.scheduling.scheduler import Scheduler
from caravan.worker.batch import lay_out, pad_decode
from caravan.worker.requests import Requests
from caravan.worker.sampler import Sampler
from caravan.worker.staging import Staging

SCOUT = KVLayout(
    block_len=16, chunk_len=8192, full_slices=1, chunked_slices=3, slice_layers=12, page_bytes=1
)
STEPS = 400
WARM_UP = 20


class Laps:
    """Seconds of each part, step by step."""

    def __init__(self) -> None:
        self.seconds: dict[str, list[float]] = defaultdict(list)
        self._last = 0.0

    def start(self) -> None:
        """The step begins."""
        self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        """A part ends."""
        now = time.perf_counter()
        self.seconds[name].append(now - self._last)
        self._last = now


def measure(num_requests: int, context: int) -> dict[str, float]:
    """Median microseconds of each part, and of whole steps."""
    longest = context + STEPS + WARM_UP + 2
    num_pages = num_requests * SCOUT.pages_needed(longest) * 2
    config = SchedulerConfig(max_num_seqs=num_requests, max_num_batched_tokens=1 << 30)
    scheduler = Scheduler(SCOUT, num_pages, config)
    cpu = torch.device("cpu")
    requests = Requests(SCOUT, num_pages, num_requests, cpu)
    staging = Staging(cpu)
    sampler = Sampler(1000, num_requests, staging)
    greedy = Sampling(max_tokens=longest - context, temperature=0.0)
    for rid in range(num_requests):
        scheduler.add(Generate(rid, [7] * context, greedy))
    laps = Laps()
    for step in range(STEPS + WARM_UP):
        if step == WARM_UP:
            laps.seconds.clear()
        laps.start()
        plan = scheduler.schedule()
        assert plan is not None
        laps.lap("schedule")
        for admission in plan.admitted:
            sampler.admit(requests.admit(admission).seat, admission)
        layout = lay_out(plan.segments, requests, SCOUT)
        if layout.decodes_only:
            pad_decode(layout, num_requests, spare_seat=num_requests)
        requests.send_tables(staging)
        laps.lap("lay out")
        rids = [segment.rid for segment in plan.segments if segment.samples]
        seats_S = np.array([requests[rid].seat for rid in rids])
        parameters = sampler._parameters[seats_S]
        for name in parameters.dtype.names or ():
            np.ascontiguousarray(parameters[name])
        laps.lap("parameters")
        sampled = [Sampled(rid, 7) for rid in rids]
        scheduler.update(plan, StepResult(sampled))
        laps.lap("update")
    parts = {name: 1e6 * median(times) for name, times in laps.seconds.items()}
    return parts | {"step": 1e6 * median(map(sum, zip(*laps.seconds.values(), strict=True)))}


def main() -> None:
    """Prints a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, nargs="+", default=[1, 8, 64, 256])
    parser.add_argument("--context", type=int, default=4096)
    parser.add_argument("--json", type=Path, default=None)
    arguments = parser.parse_args()
    results = []
    for num_requests in arguments.requests:
        parts = measure(num_requests, arguments.context)
        results.append({"requests": num_requests, "microseconds": parts})
        shown = "  ".join(f"{name} {value:.0f}" for name, value in parts.items())
        print(f"{num_requests:4d} requests, us: {shown}")
    write_results(arguments.json, results=results)


if __name__ == "__main__":
    main()
