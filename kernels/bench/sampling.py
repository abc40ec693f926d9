"""Times `caravan_kernels.sampling` and prints its share of the floor: one read of the logits.

    python kernels/bench/sampling.py --rows 64 --vocab-size 202048 --threads 2

`peaked` logits fall like a trained model's (the r-th probability as r^-1.5: top_p = 0.9 keeps about
60 tokens), `flat` ones are normal noise (it keeps tens of thousands). The floor is the time of a
plain maximum over all logits, measured here, which reads them once.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from caravan_kernels import sampling

CASES = {  # temperature, top_k, top_p, min_p
    "greedy": (0.0, 0, 1.0, 0.0),
    "temperature": (0.7, 0, 1.0, 0.0),
    "min_p 0.05": (1.0, 0, 1.0, 0.05),
    "top_k 50": (1.0, 50, 1.0, 0.0),
    "top_p 0.9": (1.0, 0, 0.9, 0.0),
    "top_k 50, top_p 0.9": (1.0, 50, 0.9, 0.0),
}


def best_time(function: Callable[[], object], repeats: int) -> float:
    """Fastest of `repeats` calls after a first one, in seconds."""
    function()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return min(times)


def make_logits(shape: str, rows: int, vocab_size: int, device: str) -> Tensor:
    """Random logits, `peaked` or `flat`: fp32 [rows, vocab_size]."""
    torch.manual_seed(0)
    if shape == "flat":
        return torch.randn(rows, vocab_size, device=device) * 2
    falling = -1.5 * torch.arange(1, vocab_size + 1, device=device).log()
    orders = [torch.randperm(vocab_size, device=device) for _ in range(rows)]
    return torch.stack([falling[order] for order in orders])


def drawing(
    logits: Tensor, temperature: float, top_k: int, top_p: float, min_p: float
) -> Callable[[], Tensor]:
    """A call of `sample` with the same parameters in every row."""
    rows, device = len(logits), logits.device
    return partial(
        sampling.sample,
        logits,
        torch.full((rows,), temperature, device=device),
        torch.full((rows,), top_k, device=device),
        torch.full((rows,), top_p, device=device, dtype=torch.float64),
        torch.full((rows,), min_p, device=device),
        torch.arange(rows, device=device),
        torch.zeros(rows, device=device, dtype=torch.int64),
    )


def main() -> None:
    """Prints one line per case."""
    parser = argparse.ArgumentParser(description="time sampling against one read of the logits")
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--vocab-size", type=int, default=202048)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    size = f"{options.rows} rows of {options.vocab_size}"
    print(f"{size}, {options.device}, {options.threads} threads, torch {torch.__version__}")
    for shape in ("peaked", "flat"):
        logits = make_logits(shape, options.rows, options.vocab_size, options.device)
        floor = best_time(partial(logits.amax, -1), options.repeats)
        calls: dict[str, Callable[[], object]] = {
            name: drawing(logits, *parameters) for name, parameters in CASES.items()
        }
        calls["logprobs, top 5"] = partial(sampling.logprobs, logits, logits.argmax(-1), 5)
        for name, call in calls.items():
            seconds = best_time(call, options.repeats)
            speed = f"{seconds * 1e3:8.2f} ms {logits.nbytes / seconds / 1e9:7.2f} GB/s"
            print(f"{shape:7} {name:20} {speed} {floor / seconds:6.1%} of the floor")


if __name__ == "__main__":
    main()
