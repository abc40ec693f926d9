"""Launch parameters as data: `launch/<kernel>.json`, by GPU and shape, measured ahead of time.

A file maps a GPU's name ("NVIDIA H200") or an architecture ("sm_90") to rules, and says where they
come from. The rules of the name win, then those of the architecture, then those of the newest
architecture below it. A rule has bounds on sizes and the parameters that hold inside them; the
first rule whose every bound is at least the given size decides, so the last one has no bounds:

    {"sm_90": {"source": "...", "rules": [
        {"up_to": {"tokens": 16}, "launch": {"BLOCK_N": 64, "num_warps": 4}},
        {"launch": {"BLOCK_N": 128, "num_warps": 8}}]}}

Nothing is tuned while serving: `kernels/bench/tune.py` writes the files.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any

import torch
import triton

Launch = Mapping[str, Any]

INTERPRETED = 90  # the architecture whose rules hold where kernels are interpreted
INTERPRETED_SMS = 8  # and the processors there: few, as programs run one after another


def launch_parameters(kernel: str, **sizes: int) -> Launch:
    """The parameters of `kernel` on the current device for these sizes."""
    for rule in rules(kernel, *_device()):
        if all(sizes[name] <= bound for name, bound in rule.get("up_to", {}).items()):
            launch: Launch = rule["launch"]
            return launch
    raise AssertionError(f"the last rule of {kernel} has bounds")


def dot_precision(dtype: torch.dtype) -> str:
    """`input_precision` of tl.dot: fp32 inputs are not rounded to tf32."""
    return "ieee" if dtype == torch.float32 else "tf32"


@cache
def num_sms() -> int:
    """Streaming multiprocessors of the current device: what persistent programs fill."""
    if not torch.cuda.is_available():
        return INTERPRETED_SMS
    return torch.cuda.get_device_properties().multi_processor_count


@cache
def rules(kernel: str, name: str, capability: int) -> tuple[dict[str, Any], ...]:
    """The rules of one kernel for a GPU of this name and architecture (90: sm_90)."""
    text = files("caravan_kernels.gpu").joinpath("launch", f"{kernel}.json").read_text()
    table = json.loads(text)
    if name in table:
        return tuple(table[name]["rules"])
    known = {int(key.removeprefix("sm_")): key for key in table if key.startswith("sm_")}
    older = [each for each in known if each <= capability]
    key = known[max(older) if older else min(known)]
    return tuple(table[key]["rules"])


@cache
def _device() -> tuple[str, int]:
    """Name and architecture of the GPU that kernels run on."""
    if not torch.cuda.is_available():
        return "", INTERPRETED
    target = triton.runtime.driver.active.get_current_target()
    return torch.cuda.get_device_name(), int(target.arch)
