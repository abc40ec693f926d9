"""Rotary embedding of chunked layers and of the vision encoder; the temperature of full layers.

Chunked layers attend inside one chunk, RoPE scores depend on differences of positions only, and
the norm of q and k does not change under rotation. So the angle of `position % chunk_len` is exact,
and the table has as many rows as a chunk has tokens, instead of ten million.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from caravan.model.architecture import Architecture, Llama3Scaling, TemperatureTuning
from caravan.model.vision_architecture import VisionArchitecture


def scale_frequencies(frequencies: Tensor, scaling: Llama3Scaling) -> Tensor:
    """Llama 3's rule (llama-models, `apply_scaling`), by wavelength w = 2 pi / frequency.

    Above original / low: divided by factor; below original / high: kept; a ramp in between, which
    has no width where low == high (Scout).
    """
    turns = scaling.original_max_position_embeddings * frequencies / (2 * math.pi)
    low, high = scaling.low_freq_factor, scaling.high_freq_factor
    if low == high:
        kept = (turns >= low).to(frequencies.dtype)
    else:
        kept = ((turns - low) / (high - low)).clamp(0, 1)
    return frequencies * (kept + (1 - kept) / scaling.factor)


def rope_table(architecture: Architecture, rows: int) -> Tensor:
    """e^(i * position * frequency): [rows, head_dim / 2] complex64.

    It stays complex64 whatever the model's dtype: rounding angles to bfloat16 loses whole turns.
    """
    exponents = torch.arange(0, architecture.head_dim, 2, dtype=torch.float64)
    frequencies = architecture.rope_theta ** (-exponents / architecture.head_dim)
    if architecture.rope_scaling is not None:
        frequencies = scale_frequencies(frequencies, architecture.rope_scaling)
    angles = torch.outer(torch.arange(rows, dtype=torch.float64), frequencies)
    return torch.polar(torch.ones_like(angles), angles).to(torch.complex64)


def vision_rope_table(vision: VisionArchitecture) -> Tensor:
    """e^(i * angle) of a tile's patches, row by row, and of the class token, which comes last.

    [patches + 1, head_dim / 2] complex64 on the CPU. The first half of the pairs turns with the
    column + 1, the second half with the row + 1; the class token stays (transformers,
    `Llama4VisionRotaryEmbedding`).
    """
    axis_dim = vision.head_dim // 2  # numbers of a head that turn with one axis
    exponents = torch.arange(0, axis_dim, 2, dtype=torch.float64, device="cpu")
    frequencies = vision.rope_theta ** (-exponents / axis_dim)
    side = vision.patches_per_side
    along = torch.outer(torch.arange(1, side + 1, dtype=torch.float64, device="cpu"), frequencies)
    columns = along.repeat(side, 1)
    rows = along.repeat_interleave(side, dim=0)
    angles = torch.cat([columns, rows], dim=1)
    angles = torch.cat([angles, angles.new_zeros(1, angles.shape[1])])
    return torch.polar(torch.ones_like(angles), angles).to(torch.complex64)


def temperature(positions_T: Tensor, tuning: TemperatureTuning) -> Tensor:
    """1 + attn_scale * log(floor((p + 1) / floor_scale) + 1) for each position p: [T] fp32."""
    grown = (positions_T + 1).div(tuning.floor_scale, rounding_mode="floor")
    return 1 + tuning.attn_scale * torch.log1p(grown.float())
