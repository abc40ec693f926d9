"""Calls of the matmuls and experts for `compile_only`: every variant, at the models' real shapes.

Scout has 16 experts, Maverick 128; TP=8 leaves 1/8 of the widths. The token counts stand for the
rules of `launch/*.json`; what no rule chooses, the other way of reading a tile, is called beside.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any
from unittest import mock

import torch

from caravan_kernels.gpu import grouped_matmul, tuning
from caravan_kernels.gpu.experts import moe_experts
from caravan_kernels.gpu.linear import linear, swiglu_linear
from caravan_kernels.gpu.swiglu import swiglu

HIDDEN = 5120
WIDTHS = {"": 8192, " tp8": 1024}
PROJECTIONS = {  # outputs, inputs
    "router": (16, HIDDEN),
    "qkv": (7168, HIDDEN),
    "qkv tp8": (896, HIDDEN),
    "o": (HIDDEN, HIDDEN),
    "shared down": (HIDDEN, 8192),
    "shared down tp8": (HIDDEN, 1024),
    "head": (202048, HIDDEN),
    "an uneven width": (7168, 1040),
}
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}


def _meta(*shape: int, dtype: torch.dtype) -> torch.Tensor:
    return torch.empty(shape, dtype=dtype, device="meta")


def _experts(tokens: int, experts: int, width: int, dtype: torch.dtype) -> None:
    meta = partial(_meta, dtype=dtype)
    moe_experts(
        meta(tokens, HIDDEN),
        meta(tokens, experts),
        meta(experts, 2 * width, HIDDEN),
        meta(experts, HIDDEN, width),
    )


def _read_otherwise(tokens: int, dtype: torch.dtype) -> None:
    """Descriptors where the rules have pointers, and the other way round."""
    chosen = tuning.launch_parameters

    def other(kernel: str, **sizes: int) -> dict[str, Any]:
        launch = chosen(kernel, **sizes)
        return {**launch, "descriptors": not launch["descriptors"]}

    with mock.patch.object(grouped_matmul, "launch_parameters", other):
        _experts(tokens, 16, 8192, dtype)


def _linear(tokens: int, outputs: int, inputs: int, dtype: torch.dtype) -> None:
    linear(_meta(tokens, inputs, dtype=dtype), _meta(outputs, inputs, dtype=dtype))


def _swiglu_linear(tokens: int, width: int, dtype: torch.dtype) -> None:
    swiglu_linear(_meta(tokens, HIDDEN, dtype=dtype), _meta(2 * width, HIDDEN, dtype=dtype))


CALLS: dict[str, Callable[[], object]] = {}
for _name, _dtype in DTYPES.items():
    for _experts_name, _number in (("scout", 16), ("maverick", 128)):
        for _tp, _width in WIDTHS.items():
            for _tokens in (1, 4, 16, 32, 64, 256, 512, 1024, 16384):
                CALLS[f"{_experts_name}{_tp} {_name} {_tokens} tokens"] = partial(
                    _experts, _tokens, _number, _width, _dtype
                )
    for _tokens in (64, 256, 512, 16384):
        CALLS[f"scout read otherwise {_name} {_tokens} tokens"] = partial(
            _read_otherwise, _tokens, _dtype
        )
    for _projection, (_outputs, _inputs) in PROJECTIONS.items():
        for _tokens in (1, 4, 16):
            CALLS[f"{_projection} {_name} {_tokens} tokens"] = partial(
                _linear, _tokens, _outputs, _inputs, _dtype
            )
    for _tp, _width in WIDTHS.items():
        for _tokens in (1, 4, 16):
            CALLS[f"shared gate-up{_tp} {_name} {_tokens} tokens"] = partial(
                _swiglu_linear, _tokens, _width, _dtype
            )
    CALLS[f"swiglu {_name}"] = partial(swiglu, _meta(64, 2 * 8192, dtype=_dtype))
