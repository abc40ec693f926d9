"""Writes what was trained as a Hugging Face checkpoint."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save_file

from caravan.text.tokenizer import Tokenizer
from demo_training import shape
from demo_training.network import Llama4
from demo_training.training import JOINT


def export(directory: Path, phase: str = JOINT.name) -> None:
    """Writes directory/checkpoint: bfloat16 weights, configuration, tokenizer."""
    target = directory / "checkpoint"
    target.mkdir(exist_ok=True)
    network = Llama4(shape.TEXT, shape.VISION)
    network.load_state_dict(torch.load(directory / f"{phase}.pt", weights_only=True)["model"])
    tensors = {name: value.bfloat16().contiguous() for name, value in network.checkpoint().items()}
    save_file(tensors, target / "model.safetensors", metadata={"format": "pt"})
    (target / "model.safetensors").chmod(0o644)
    tokenizer = Tokenizer.from_directory(directory, shape.TEXT["vocab_size"])
    for name, content in (
        ("config.json", shape.config(tokenizer)),
        ("generation_config.json", shape.generation_config(tokenizer)),
        ("preprocessor_config.json", shape.preprocessor_config()),
    ):
        (target / name).write_text(json.dumps(content, indent=1) + "\n")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (target / name).write_bytes((directory / name).read_bytes())
