"""The manifest against the names and shapes of transformers' own model at the real sizes."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from transformers import Llama4Config, Llama4ForConditionalGeneration, Llama4TextConfig

from caravan.model.architecture import Architecture
from caravan.model.footprint import footprint
from caravan.model.manifest import parameters

REAL: dict[str, dict[str, Any]] = {
    "scout": {"num_local_experts": 16},
    "maverick": {
        "num_local_experts": 128,
        "interleave_moe_layer_step": 2,
        "use_qk_norm": False,
    },
    "guard": {"num_local_experts": 0, "moe_layers": [], "no_rope_layer_interval": 80},
}
VISION: dict[str, Any] = {
    "hidden_size": 1408,
    "image_size": 336,
    "vision_output_dim": 4096,
}


@pytest.mark.parametrize("model", REAL)
def test_names_and_shapes_are_those_of_transformers(model: str) -> None:
    config = Llama4Config(text_config=Llama4TextConfig(**REAL[model]), vision_config=dict(VISION))
    with torch.device("meta"):
        oracle = Llama4ForConditionalGeneration(config)
    expected = {
        name.removeprefix("language_model."): tuple(tensor.shape)
        for name, tensor in oracle.state_dict().items()
    }
    architecture = Architecture.from_config(
        {"model_type": "llama4", "text_config": REAL[model], "vision_config": VISION}
    )
    wanted = parameters(architecture)
    assert {source.tensor: source.shape for entry in wanted for source in entry.sources} == expected
    size = footprint(architecture, dtype="bfloat16", block_len=16)
    assert size.total_parameters == sum(math.prod(shape) for shape in expected.values())
