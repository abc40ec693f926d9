"""RoPE angles and the temperature of full layers, against Meta's code and the written formula."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from caravan.model.architecture import Architecture, TemperatureTuning
from caravan.model.rope import rope_table, temperature


def architecture(**fields: Any) -> Architecture:
    return Architecture.from_config(
        {"model_type": "llama4_text", "hidden_size": 64, "num_attention_heads": 8} | fields
    )


def llama3(factor: float, high: float) -> dict[str, Any]:
    return {
        "rope_type": "llama3",
        "factor": factor,
        "low_freq_factor": 1.0,
        "high_freq_factor": high,
        "original_max_position_embeddings": 8192,
    }


def metas_frequencies(factor: float | None, high: float) -> torch.Tensor:
    """`apply_scaling` of llama-models (llama4/model.py), from its published formula in fp64."""
    frequencies = 500000.0 ** -(torch.arange(0, 128, 2, dtype=torch.float64) / 128)
    if factor is None:
        return frequencies
    scaled = []
    for frequency in frequencies.tolist():
        wavelength = 2 * math.pi / frequency
        if wavelength < 8192 / high:
            scaled.append(frequency)
        elif wavelength > 8192:
            scaled.append(frequency / factor)
        else:
            smooth = (8192 / wavelength - 1) / (high - 1)
            scaled.append((1 - smooth) * frequency / factor + smooth * frequency)
    return torch.tensor(scaled, dtype=torch.float64)


@pytest.mark.parametrize(("factor", "high"), [(None, 0.0), (16.0, 1.0), (8.0, 4.0)])
def test_angles(factor: float | None, high: float) -> None:
    scaling = None if factor is None else llama3(factor, high)
    table = rope_table(architecture(rope_scaling=scaling), rows=8192)
    angles = torch.outer(torch.arange(8192.0).double(), metas_frequencies(factor, high))
    torch.testing.assert_close(table.real.double(), angles.cos(), atol=1e-7, rtol=0)
    torch.testing.assert_close(table.imag.double(), angles.sin(), atol=1e-7, rtol=0)


def test_scouts_step_divides_29_of_64_frequencies() -> None:
    plain = rope_table(architecture(rope_scaling=None), rows=2)[1].angle()
    scout = rope_table(architecture(rope_scaling=llama3(16.0, 1.0)), rows=2)[1].angle()
    assert torch.isfinite(scout).all()
    ratio = plain / scout
    assert ratio[:35].allclose(torch.tensor(1.0))
    assert ratio[35:].allclose(torch.tensor(16.0))


def test_temperature_of_the_fact_sheet() -> None:
    tuning = TemperatureTuning(floor_scale=8192, attn_scale=0.1)
    positions = torch.tensor([0, 8190, 8191, 131071, 1048575, 10485759])
    expected = torch.tensor([1.0, 1.0, 1.069, 1.283, 1.486, 1.716])
    torch.testing.assert_close(temperature(positions, tuning), expected, atol=5e-4, rtol=0)
    assert temperature(positions[:2], tuning).tolist() == [1.0, 1.0]
