"""The vision encoder, written to be trained. Parameters have the checkpoint's names."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def rotated(x: Tensor, rope: tuple[Tensor, Tensor]) -> Tensor:
    """Neighbouring pairs of the last dimension turned by the table's angles."""
    cos, sin = (table[: x.shape[2]] for table in rope)
    even, odd = x[..., 0::2], x[..., 1::2]
    return torch.stack([even * cos - odd * sin, even * sin + odd * cos], dim=-1).flatten(-2)


class VisionAttention(nn.Module):
    """Every patch sees its whole tile."""

    def __init__(self, hidden: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q_proj = nn.Linear(hidden, hidden)
        self.k_proj = nn.Linear(hidden, hidden)
        self.v_proj = nn.Linear(hidden, hidden)
        self.o_proj = nn.Linear(hidden, hidden)

    def forward(self, x: Tensor, rope: tuple[Tensor, Tensor]) -> Tensor:
        tiles, patches, hidden = x.shape
        shape = (tiles, patches, self.heads, hidden // self.heads)
        q = rotated(self.q_proj(x).view(shape).transpose(1, 2), rope)
        k = rotated(self.k_proj(x).view(shape).transpose(1, 2), rope)
        v = self.v_proj(x).view(shape).transpose(1, 2)
        out = F.scaled_dot_product_attention(q, k, v)
        merged: Tensor = self.o_proj(out.transpose(1, 2).reshape(x.shape))
        return merged


class VisionMlp(nn.Module):
    """fc2(gelu(fc1(x)))."""

    def __init__(self, hidden: int, intermediate: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(hidden, intermediate)
        self.fc2 = nn.Linear(intermediate, hidden)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.fc2(F.gelu(self.fc1(x)))
        return out


class VisionLayer(nn.Module):
    """A layer of the encoder."""

    def __init__(self, vision: dict[str, Any]) -> None:
        super().__init__()
        hidden = vision["hidden_size"]
        self.input_layernorm = nn.LayerNorm(hidden)
        self.self_attn = VisionAttention(hidden, vision["num_attention_heads"])
        self.post_attention_layernorm = nn.LayerNorm(hidden)
        self.mlp = VisionMlp(hidden, vision["intermediate_size"])

    def forward(self, x: Tensor, rope: tuple[Tensor, Tensor]) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x), rope)
        out: Tensor = x + self.mlp(self.post_attention_layernorm(x))
        return out


class AdapterMlp(nn.Module):
    """gelu(fc2(gelu(fc1(x)))), without biases."""

    def __init__(self, vision: dict[str, Any]) -> None:
        super().__init__()
        width = vision["projector_input_dim"]
        self.fc1 = nn.Linear(vision["intermediate_size"], width, bias=False)
        self.fc2 = nn.Linear(width, vision["projector_output_dim"], bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return F.gelu(self.fc2(F.gelu(self.fc1(x))))


class VisionModel(nn.Module):
    """Tiles uint8 [tiles, S, S, 3] -> [tiles, tile_tokens, vision_output_dim]."""

    def __init__(self, vision: dict[str, Any]) -> None:
        super().__init__()
        self.vision = vision
        hidden, patch = vision["hidden_size"], vision["patch_size"]
        self.side = vision["image_size"] // patch
        positions = self.side**2 + 1
        self.patch_embedding = nn.ModuleDict(
            {"linear": nn.Linear(3 * patch * patch, hidden, bias=False)}
        )
        self.class_embedding = nn.Parameter(torch.randn(hidden) * 0.02)
        self.positional_embedding_vlm = nn.Parameter(torch.randn(positions, hidden) * 0.02)
        self.layernorm_pre = nn.LayerNorm(hidden)
        layers = nn.ModuleList(VisionLayer(vision) for _ in range(vision["num_hidden_layers"]))
        self.model = nn.ModuleDict({"layers": layers})
        self.layernorm_post = nn.LayerNorm(hidden)
        self.vision_adapter = nn.ModuleDict({"mlp": AdapterMlp(vision)})
        self.rope = _vision_rope(vision, self.side)

    def forward(self, tiles: Tensor) -> Tensor:
        patch, side = self.vision["patch_size"], self.side
        pixels = tiles.float() / 127.5 - 1
        cut = pixels.view(-1, side, patch, side, patch, 3).permute(0, 1, 3, 5, 2, 4)
        x = self.patch_embedding["linear"](cut.reshape(len(tiles), side * side, -1))
        last = self.class_embedding.expand(len(tiles), 1, -1)
        x = self.layernorm_pre(torch.cat([x, last], dim=1) + self.positional_embedding_vlm)
        layers = self.model["layers"]
        assert isinstance(layers, nn.ModuleList)
        for layer in layers:
            x = layer(x, self.rope)
        x = self.layernorm_post(x)[:, :-1]
        shuffled = x.view(-1, side // 2, 2, side // 2, 2, x.shape[-1]).permute(0, 1, 3, 2, 4, 5)
        out: Tensor = self.vision_adapter["mlp"](shuffled.reshape(len(tiles), (side // 2) ** 2, -1))
        return out


def _vision_rope(vision: dict[str, Any], side: int) -> tuple[Tensor, Tensor]:
    """The first half of the pairs turns with the column + 1, the second with the row + 1."""
    axis = vision["hidden_size"] // vision["num_attention_heads"] // 2
    frequencies = vision["rope_theta"] ** -(torch.arange(0, axis, 2).double() / axis)
    along = torch.outer(torch.arange(1, side + 1).double(), frequencies)
    angles = torch.cat([along.repeat(side, 1), along.repeat_interleave(side, dim=0)], dim=1)
    angles = torch.cat([angles, angles.new_zeros(1, angles.shape[1])])
    return angles.cos().float(), angles.sin().float()
