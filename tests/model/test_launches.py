"""What a GPU is told to do in a step, watched on the CPU: how many kernels, and no waiting.

A launch takes about 1.3 us even inside a graph, by others' measurements, so that 14 per layer would
cost Scout a fifth of its speed at one request. A read of the device's memory by the host waits for
all of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from triton.runtime.interpreter import GridExecutor

from caravan.config import SchedulerConfig
from caravan.messages import Generate, Sampling
from caravan.scheduling.scheduler import Scheduler
from caravan.worker.batch import no_rows, pad_decode, step_input
from caravan.worker.runner import Runner
from caravan_kernels import devices
from in_process import load
from quick_interpreter import replace_once

MOST_PER_LAYER = 14

# they allocate, or say where something is
FREE = {"empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "detach"}


# they read a tensor's values on the host, to find a size or a number
WAITS = {"_local_scalar_dense", "nonzero", "masked_select", "unique", "_unique2", "is_nonzero"}


class TorchKernels(TorchDispatchMode):
    """Counts PyTorch's own kernels: all operators but views and allocations."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.seen: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        is_view = any(r.alias_info and not r.alias_info.is_write for r in func._schema.returns)
        if not is_view and name not in FREE:
            self.seen[name] += 1
        indices = args[1] if name.startswith("index") and isinstance(args[1], list) else []
        if any(index is not None and index.dtype == torch.bool for index in indices):
            self.seen["nonzero"] += 1
        return func(*args, **(kwargs or {}))


@contextmanager
def counted(monkeypatch: pytest.MonkeyPatch) -> Iterator[Counter[str]]:
    mode, launch = TorchKernels(), GridExecutor.__call__

    def count(self: Any, *args: Any, **kwargs: Any) -> Any:
        mode.seen[self.fn.__name__] += 1
        with _disable_current_modes():
            return launch(self, *args, **kwargs)

    with monkeypatch.context() as patched, mode:
        patched.setattr(GridExecutor, "__call__", count)
        yield mode.seen


def decode_step(runner: Runner, rows: int, monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """One captured step's kernels; the rows are requests in their second chunk."""
    step = pad_decode(no_rows(), rows, spare_seat=rows)
    step.arrays["positions"][:] = 40
    step.arrays["full_len"][:], step.arrays["chunked_len"][:] = 41, 9
    sent = {name: torch.from_numpy(np.ascontiguousarray(a)) for name, a in step.arrays.items()}
    given = step_input(sent, rows, runner._memory)
    out = torch.empty(rows, runner.vocab_size)
    with counted(monkeypatch) as seen:
        runner._model(given, runner.caches, out)
    return seen


@pytest.mark.skipif(torch.cuda.is_available(), reason="kernels are compiled here")
@pytest.mark.parametrize("rows", [1, 4])
def test_kernels_per_layer(
    rows: int, tiny_checkpoint: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = {}
    for layers in (4, 8):
        directory = tiny_checkpoint("scout", num_hidden_layers=layers)
        runner = load(directory)
        with monkeypatch.context() as patched:
            patched.setattr(devices, "on_gpu", lambda x: True)
            replace_once(patched)
            seen[layers] = decode_step(runner, rows, monkeypatch)
    per_layer = (seen[8].total() - seen[4].total()) / 4
    assert 8 <= per_layer <= MOST_PER_LAYER, seen[8] - seen[4]


@pytest.mark.skipif(torch.cuda.is_available(), reason="kernels are compiled here")
def test_launching_a_step_never_waits_for_the_device(
    tiny_checkpoint: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Prefill and decode, with every way to draw a token."""
    runner = load(tiny_checkpoint("scout"))
    monkeypatch.setattr(devices, "on_gpu", lambda x: True)
    replace_once(monkeypatch)
    samplings = [
        Sampling(max_tokens=9, temperature=0.0, logprobs=3),
        Sampling(max_tokens=9, seed=5, top_p=0.9, frequency_penalty=0.4),
        Sampling(max_tokens=9, top_k=9, min_p=0.01, repetition_penalty=1.2, logprobs=0),
        Sampling(max_tokens=9, logit_bias=((3, 2.0),), min_tokens=4, stop_token_ids=(3, 4)),
    ]
    scheduler = Scheduler(
        runner.layout, runner.num_pages, SchedulerConfig(max_num_batched_tokens=60)
    )
    for rid, sampling in enumerate(samplings):
        scheduler.add(Generate(rid, [1 + rid] * (30 + rid), sampling))
    launched = []
    for _ in range(5):
        plan = scheduler.schedule()
        assert plan is not None
        with counted(monkeypatch) as seen, monkeypatch.context() as forbidden:
            for name in ("item", "tolist", "cpu", "__bool__", "__int__", "__float__"):
                forbidden.setattr(torch.Tensor, name, _refuse(name))
            launched.append((plan, runner.launch(plan)))
        assert not WAITS.intersection(seen), seen
    for plan, step in launched:
        scheduler.update(plan, step.result())
    assert scheduler.stats().running == len(samplings)


def _refuse(name: str) -> Callable[..., Any]:
    def refuse(self: torch.Tensor, *args: Any) -> Any:
        raise AssertionError(f"Tensor.{name} waits for the device")

    return refuse
