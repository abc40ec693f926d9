"""Cases of dense projections for `gpu.py`: Scout's, whole and as one of eight ranks has them.

    T tokens, K inputs, N outputs

Bytes: the weight once, inputs and results once. FLOPs: 2 * T * K * N. The peer is what a user would
call, `F.linear`, which is cuBLAS; ours calls it too where its own kernels are not faster, so from
there on the ratio is that of two equal calls.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from gpu_case import Case, InputSets
from torch import Tensor

import caravan_kernels as kernels

SHAPES = {  # outputs, inputs
    "qkv": (7168, 5120),
    "out": (5120, 5120),
    "shared down": (5120, 8192),
    "router": (16, 5120),
    "head": (202048, 5120),
    "qkv of 8": (896, 5120),
    "out of 8": (5120, 640),
}
SWIGLU_SHAPES = {"shared gate-up": (8192, 5120), "shared gate-up of 8": (1024, 5120)}
TOKENS = (1, 8, 16, 64, 256)
MANY_TOKENS = 8192  # of a prompt, for the larger projections
SMALL = {"odd": (72, 40)}


def cases(device: torch.device, *, small: bool) -> list[Case]:
    """Projections, and those with SwiGLU behind them."""
    plain, swiglu = (SMALL, SMALL) if small else (SHAPES, SWIGLU_SHAPES)
    found = [_linear(name, tokens, device, small) for name, tokens in _sizes(plain, small)]
    return [
        *found,
        *(_swiglu(name, tokens, device, small) for name, tokens in _sizes(swiglu, small)),
    ]


def _sizes(shapes: dict[str, tuple[int, int]], small: bool) -> Iterator[tuple[str, int]]:
    for name in shapes:
        yield from ((name, tokens) for tokens in ((1, 3, 64) if small else TOKENS))
        if not small and name in ("qkv", "shared down", "shared gate-up"):
            yield name, MANY_TOKENS


def _inputs(
    tokens: int, rows: int, width: int, device: torch.device, dtype: torch.dtype
) -> InputSets:
    def make() -> tuple[Tensor, Tensor]:
        x = torch.randn(tokens, width, device=device, dtype=dtype)
        return x, torch.randn(rows, width, device=device, dtype=dtype) * width**-0.5

    num_bytes = (tokens + rows) * width * dtype.itemsize
    return InputSets(make, num_bytes, device)


def _linear(name: str, tokens: int, device: torch.device, small: bool) -> Case:
    (outputs, width), dtype = (SMALL if small else SHAPES)[name], _dtype(small)
    sets = _inputs(tokens, outputs, width, device, dtype)
    return Case(
        name=f"{name} {outputs} x {width}, {tokens} tokens",
        run=sets.bind(kernels.linear),
        peers={"cuBLAS": sets.bind(F.linear)},
        bytes=(tokens * (width + outputs) + outputs * width) * dtype.itemsize,
        flops=2 * tokens * outputs * width,
        dtype=dtype,
    )


def _swiglu(name: str, tokens: int, device: torch.device, small: bool) -> Case:
    (outputs, width), dtype = (SMALL if small else SWIGLU_SHAPES)[name], _dtype(small)

    def theirs(x: Tensor, gate_up: Tensor) -> Tensor:
        gate, up = F.linear(x, gate_up).chunk(2, dim=-1)
        return F.silu(gate) * up

    sets = _inputs(tokens, 2 * outputs, width, device, dtype)
    return Case(
        name=f"{name} 2 x {outputs} x {width}, {tokens} tokens",
        run=sets.bind(kernels.swiglu_linear),
        peers={"cuBLAS": sets.bind(theirs)},
        bytes=(tokens * (width + outputs) + 2 * outputs * width) * dtype.itemsize,
        flops=4 * tokens * outputs * width,
        dtype=dtype,
    )


def _dtype(small: bool) -> torch.dtype:
    return torch.float16 if small else torch.bfloat16
