"""What the scheduler's admission headroom saves: tokens computed again after preemptions.

    python kernels/bench/headroom.py

Simulates 400 requests of random lengths on Scout's cache layout, all waiting at the start. No model
runs, so the figures are the same on every machine. See docs/adr/0003.
"""

from __future__ import annotations

import random

from caravan.config import SchedulerConfig
from caravan.kv_layout import KVLayout
from caravan.messages import Generate, Sampled, Sampling, StepResult
from caravan.scheduling import scheduler as policy

LAYOUT = KVLayout(
    block_len=16, chunk_len=8192, full_slices=1, chunked_slices=3, slice_layers=12, page_bytes=1
)
WORKLOADS = {  # pages, prompt tokens, output tokens
    "chat": (20000, (200, 2000), (100, 1500)),
    "chat, tight": (6000, (200, 2000), (100, 1500)),
    "short in, long out": (20000, (50, 200), (500, 3000)),
    "long in": (60000, (2000, 20000), (50, 400)),
}


def simulate(pages: int, prompts: tuple[int, int], outputs: tuple[int, int]) -> tuple[int, float]:
    """Steps taken, and tokens computed again as a share of those needed once."""
    source = random.Random(0)
    config = SchedulerConfig(max_num_seqs=256, max_num_batched_tokens=2048)
    scheduler = policy.Scheduler(LAYOUT, pages, config)
    needed = 0
    for rid in range(400):
        prompt, output = source.randint(*prompts), source.randint(*outputs)
        needed += prompt + output - 1
        scheduler.add(Generate(rid, [1] * prompt, Sampling(max_tokens=output)))
    while plan := scheduler.schedule():
        sampled = [Sampled(segment.rid, 5) for segment in plan.segments if segment.samples]
        scheduler.update(plan, StepResult(sampled))
    stats = scheduler.stats()
    return stats.steps, stats.computed_tokens / needed - 1


def main() -> None:
    """Prints each workload without headroom, as served, and with twice as much."""
    for name, workload in WORKLOADS.items():
        for blocks in (0, 2, 4):
            policy.HEADROOM_BLOCKS = blocks
            steps, again = simulate(*workload)
            print(f"{name:<20} {blocks} blocks: {steps:6} steps, {again:5.1%} computed again")


if __name__ == "__main__":
    main()
