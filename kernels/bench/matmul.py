"""Times small-batch matmuls of the CPU against PyTorch's own, in pairs, and against their floor.

    python kernels/bench/matmul.py --json kernels/bench/results/matmul.json

The shapes are the vocabulary projection, a gate-up and a down projection of the 1.7 B benchmark
model. The floor is one read of the weight at the rate of a plain sum over 1 GiB, measured here.
"""

from __future__ import annotations

import argparse
import time
from functools import partial
from pathlib import Path

from timing import pairs

from caravan.worker import environment

environment.prepare()

import torch
import torch.nn.functional as F
from results_file import write_results

import caravan_kernels as kernels

SHAPES = ((202048, 1024), (4096, 1024), (1024, 2048))  # outputs, inputs
ROWS = (1, 2, 4, 8, 16, 64, 256)


def read_rate() -> float:
    """Bytes per second of a sum over 1 GiB: the best of five."""
    probe = torch.ones(1 << 28)
    times = []
    for _ in range(5):
        started = time.perf_counter()
        probe.sum().item()
        times.append(time.perf_counter() - started)
    return probe.nbytes / min(times)


def main() -> None:
    """Prints a table; writes it with what made it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--dtype", default="bfloat16", choices=["bfloat16", "float32"])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--json", type=Path, default=None)
    arguments = parser.parse_args()
    rate = read_rate()
    print(f"{arguments.dtype}, {torch.get_num_threads()} threads, reads {rate / 1e9:.1f} GB/s")
    print("outputs inputs rows   ours ms  torch ms  torch/ours  % of floor")
    results = []
    for outputs, inputs in SHAPES:
        weight = torch.randn(outputs, inputs).to(getattr(torch, arguments.dtype))
        for rows in ROWS:
            if rows > 16 and outputs > 100_000:
                continue  # a step samples at most one row per request
            x = torch.randn(rows, inputs)
            low = x.to(weight.dtype)
            ours, theirs, ratio = pairs(
                partial(kernels.linear, x, weight),
                partial(F.linear, low, weight),
                arguments.repeats,
            )
            share = weight.nbytes / rate / ours
            print(
                f"{outputs:7} {inputs:6} {rows:4} {1e3 * ours:9.3f} {1e3 * theirs:9.3f} "
                f"{ratio:11.1f} {100 * share:11.0f}",
                flush=True,
            )
            results.append(
                {"outputs": outputs, "inputs": inputs, "rows": rows, "ours_s": ours}
                | {"torch_s": theirs, "ratio": ratio, "share_of_floor": share}
            )
    write_results(arguments.json, dtype=arguments.dtype, read_bytes_per_s=rate, results=results)


if __name__ == "__main__":
    main()
