"""Deliberate faults: mistakes that people made with Llama 4, put into Caravan's own code.

Each changes the configuration, or replaces one function while the questions are answered. The
exam has to notice: a fault that costs nothing would mean that nothing depends on the mechanism.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import caravan_kernels as kernels
from caravan.model import llama4, vision
from caravan.model.attention import KindInput
from caravan.model.feed_forward import MixtureOfExperts
from caravan.model.rope import rope_table, temperature, vision_rope_table
from caravan.model.step import StepInput
from caravan.model.vision_architecture import VisionArchitecture
from caravan.tiles import TiledImage
from demo_training.shape import CHUNK

Config = dict[str, Any]
Patch = Callable[[pytest.MonkeyPatch], None]

_CERTAIN = 60.0  # a logit whose sigmoid is 1 in fp32


def _nothing(patch: pytest.MonkeyPatch) -> None:
    """No function is replaced."""


def _same_tiles(image: TiledImage) -> Sequence[bytes]:
    return image.tiles


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong, and where."""

    name: str
    text_config: Config | None = None  # fields of the decoder's configuration
    patch: Patch = _nothing
    tiles: Callable[[TiledImage], Sequence[bytes]] = _same_tiles


def _swapped_axes(patch: pytest.MonkeyPatch) -> None:
    def table(architecture: VisionArchitecture) -> Tensor:
        columns, rows = vision_rope_table(architecture).chunk(2, dim=1)
        return torch.cat([rows, columns], dim=1)

    patch.setattr(vision, "vision_rope_table", table)


def _class_token_first(patch: pytest.MonkeyPatch) -> None:
    """The class token stands before the patches, which take the places behind it."""
    embed = vision.VisionEncoder._embed

    def shifted(self: vision.VisionEncoder, tiles_NSSC: Tensor) -> Tensor:
        x = embed(self, tiles_NSSC) - self.positional_embedding
        return x.roll(1, dims=1) + self.positional_embedding

    def forward(self: vision.VisionEncoder, tiles_NSSC: Tensor) -> Tensor:
        x = shifted(self, tiles_NSSC)
        shape = x.shape
        x = self.norm_pre(x.flatten(0, 1))
        for layer in self.layers:
            x = layer(x, self.rope_PF)
        patches = self.norm_post(x).view(shape)[:, 1:]
        rows = vision.pixel_shuffle(patches, self.architecture.shuffle).flatten(0, 1)
        projected: Tensor = self.projector(self.adapter(rows))
        return projected.view(len(tiles_NSSC), self.architecture.tile_tokens, -1)

    patch.setattr(vision.VisionEncoder, "forward", forward)


def _rope_on_full_layers(patch: pytest.MonkeyPatch) -> None:
    def full_input(self: llama4.Llama4, step: StepInput) -> KindInput | None:
        if step.full is None:
            return None
        tuning = self.architecture.temperature_tuning
        assert tuning is not None
        table = rope_table(self.architecture, int(step.positions_T.max()) + 1)
        return KindInput(
            step.full,
            rope_TF=table[step.positions_T],
            temperature_T=temperature(step.positions_T, tuning),
        )

    patch.setattr(llama4.Llama4, "_full_input", full_input)


def _score_on_the_output(patch: pytest.MonkeyPatch) -> None:
    def forward(
        self: MixtureOfExperts, x: Tensor, num_rows: Tensor | None = None
    ) -> tuple[Tensor, ...]:
        logits = self.router(x)
        top, expert = logits.max(dim=-1, keepdim=True)
        chosen = torch.full_like(logits, -_CERTAIN).scatter(1, expert, _CERTAIN)
        routed = kernels.moe_experts(x, chosen, self.experts.gate_up, self.experts.down, num_rows)
        return self.shared(x), routed * top.sigmoid()

    patch.setattr(MixtureOfExperts, "forward", forward)


def _half_split_rope(patch: pytest.MonkeyPatch) -> None:
    """Pairs are (i, i + D / 2), as most models have them, instead of neighbours."""
    rotate = kernels.qkv_epilogue

    def epilogue(qkv_TXD: Tensor, *rest: Any, rope_TF: Tensor | None, **options: Any) -> Tensor:
        if rope_TF is None:
            out: Tensor = rotate(qkv_TXD, *rest, rope_TF=None, **options)
            return out
        half = qkv_TXD.shape[-1] // 2
        mixed = qkv_TXD.clone()
        turned = slice(0, qkv_TXD.shape[1] - rest[0].shape[2])  # all heads but the values'
        mixed[:, turned, 0::2] = qkv_TXD[:, turned, :half]
        mixed[:, turned, 1::2] = qkv_TXD[:, turned, half:]
        turned_THD: Tensor = rotate(mixed, *rest, rope_TF=rope_TF, **options)
        return turned_THD

    patch.setattr(kernels, "qkv_epilogue", epilogue)


def _global_tile_first(image: TiledImage) -> Sequence[bytes]:
    return [image.tiles[-1], *image.tiles[:-1]]


def _columns_first(image: TiledImage) -> Sequence[bytes]:
    """The canvas is cut column by column instead of row by row."""
    rows, columns = image.grid.rows, image.grid.columns
    local = [
        image.tiles[row * columns + column] for column in range(columns) for row in range(rows)
    ]
    return [*local, *image.tiles[len(local) :]]


FAULTS = (
    Fault("none"),
    Fault("chunk mask twice as wide", {"attention_chunk_size": 2 * CHUNK}),
    Fault("chunk mask half as wide", {"attention_chunk_size": CHUNK // 2}),
    Fault("RoPE on full layers", patch=_rope_on_full_layers),
    Fault("RoPE pairs split in halves", patch=_half_split_rope),
    Fault("RoPE without its scaling", {"rope_scaling": None}),
    Fault("no norm of q and k", {"use_qk_norm": False}),
    Fault("no temperature", {"attn_temperature_tuning": False}),
    Fault("router score on the output", patch=_score_on_the_output),
    Fault("x and y of the vision RoPE swapped", patch=_swapped_axes),
    Fault("class token first", patch=_class_token_first),
    Fault("global tile first", tiles=_global_tile_first),
    Fault("tiles column by column", tiles=_columns_first),
)


def faulty_copy(fault: Fault, model: Path, target: Path) -> Path:
    """The model's directory with the fault's configuration."""
    target.mkdir()
    for file in model.iterdir():
        (target / file.name).write_bytes(file.read_bytes())
    config = json.loads((target / "config.json").read_text())
    config["text_config"] |= fault.text_config or {}
    (target / "config.json").write_text(json.dumps(config))
    return target
