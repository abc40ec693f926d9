"""Predicted steps against an independent calculation of the same floors."""

from __future__ import annotations

import pytest

from caravan.cli.gpu_kinds import GPUS, all_reduce_s, decode_step_s
from caravan.model.architecture import Architecture
from caravan.model.footprint import footprint

SCOUT = Architecture.from_config({"model_type": "llama4_text", "max_position_embeddings": 10485760})
MAVERICK = Architecture.from_config(
    {"model_type": "llama4_text", "num_local_experts": 128, "interleave_moe_layer_step": 2}
)

# roofline.py point --model M --hw GPU --tp N --w bf16 --kv bf16 --batch B --ctx 1024, in ms. It is
# not in this repository; it adds up max(reads, arithmetic) of each part, we take that of the sum.
CASES = [
    (SCOUT, "h200", 8, 1, 1.2855),
    (SCOUT, "h200", 8, 64, 7.0720),
    (SCOUT, "h200", 4, 8, 6.1630),
    (SCOUT, "h100", 8, 8, 4.0907),
    (SCOUT, "a100", 8, 1, 2.5751),
    (MAVERICK, "h200", 8, 1, 1.2910),
    (MAVERICK, "b200", 8, 64, 5.8407),
]


@pytest.mark.parametrize(("architecture", "gpu", "tp_size", "rows", "step_ms"), CASES)
def test_a_decode_step(
    architecture: Architecture, gpu: str, tp_size: int, rows: int, step_ms: float
) -> None:
    size = footprint(architecture, dtype="bfloat16", block_len=64, tp_size=tp_size)
    found = decode_step_s(GPUS[gpu], size, architecture, [1024] * rows, tp_size)
    assert found * 1e3 == pytest.approx(step_ms, rel=0.01)


def test_many_rows_are_bound_by_arithmetic() -> None:
    size = footprint(SCOUT, dtype="bfloat16", block_len=64, tp_size=8)
    rows = 100_000
    active = 16.14e9  # parameters that a token meets, as the model card and llama4.md count them
    least = 2 * active * rows / 8 / GPUS["h200"].flops_per_s
    found = decode_step_s(GPUS["h200"], size, SCOUT, [1] * rows, 8)
    wire = 96 * all_reduce_s(GPUS["h200"], rows * 5120 * 2, 8)
    assert found - wire == pytest.approx(least, rel=0.02)


def test_one_rank_sums_nothing() -> None:
    assert all_reduce_s(GPUS["h200"], 1e9, 1) == 0
