"""The vision encoder: tiles of pixels become rows that stand where word embeddings would.

N tiles, S side of a tile, C color channels, P positions (patches, and the class token last),
H heads, D head dim, F = D / 2
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import caravan_kernels as kernels
from caravan.model.layers import LayerNorm, Linear, parameter
from caravan.model.rope import vision_rope_table
from caravan.model.vision_architecture import VisionArchitecture

_EPS = 1e-5  # llama-models and transformers both leave nn.LayerNorm's, whatever norm_eps says


class VisionAttention(nn.Module):
    """x [N * P, hidden] -> [N * P, hidden]: each position sees all of its tile."""

    def __init__(self, vision: VisionArchitecture) -> None:
        super().__init__()
        self.num_heads = vision.num_heads
        self.qkv = Linear(vision.hidden_size, 3 * vision.hidden_size, bias=True)
        self.out = Linear(vision.hidden_size, vision.hidden_size, bias=True)

    def forward(self, x: Tensor, rope_PF: Tensor) -> Tensor:
        qkv = self.qkv(x).view(-1, len(rope_PF), 3, self.num_heads, 2 * rope_PF.shape[1])
        q_NPHD, k_NPHD = kernels.rotate_pairs(qkv[:, :, :2], rope_PF[:, None, None]).unbind(2)
        attended_NPHD = kernels.vision_attention(q_NPHD, k_NPHD, qkv[:, :, 2])
        out: Tensor = self.out(attended_NPHD.reshape(x.shape))
        return out


class VisionLayer(nn.Module):
    """x + attention(norm(x)), then x + fc2(gelu(fc1(norm(x))))."""

    def __init__(self, vision: VisionArchitecture) -> None:
        super().__init__()
        self.attention_norm = LayerNorm(vision.hidden_size, _EPS)
        self.attention = VisionAttention(vision)
        self.mlp_norm = LayerNorm(vision.hidden_size, _EPS)
        self.fc1 = Linear(vision.hidden_size, vision.intermediate_size, bias=True)
        self.fc2 = Linear(vision.intermediate_size, vision.hidden_size, bias=True)

    def forward(self, x: Tensor, rope_PF: Tensor) -> Tensor:
        x = x + self.attention(self.attention_norm(x), rope_PF)
        residual: Tensor = x + self.fc2(F.gelu(self.fc1(self.mlp_norm(x))))
        return residual


class Adapter(nn.Module):
    """gelu(fc2(gelu(fc1(x)))), without biases."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.fc1 = Linear(inputs, width, bias=False)
        self.fc2 = Linear(width, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return F.gelu(self.fc2(F.gelu(self.fc1(x))))


class VisionEncoder(nn.Module):
    """Tiles uint8 [N, S, S, 3] -> [N, tile_tokens, outputs] in `activation_dtype`.

    The result includes the projector, so `outputs` is the text model's hidden size. Tiles do not
    see each other. Parameters get torch's default dtype and device; `device` is where the RoPE
    table goes, which stays complex64 whatever the dtype.
    """

    def __init__(
        self,
        vision: VisionArchitecture,
        *,
        outputs: int,
        activation_dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        super().__init__()
        v = vision
        self.architecture = v
        self.activation_dtype = activation_dtype
        self.patch_embedding = Linear(v.patch_elements, v.hidden_size, bias=False)
        self.class_embedding = parameter(v.hidden_size)
        self.positional_embedding = parameter(v.num_positions, v.hidden_size)
        self.norm_pre = LayerNorm(v.hidden_size, _EPS)
        self.layers = nn.ModuleList(VisionLayer(v) for _ in range(v.num_layers))
        self.norm_post = LayerNorm(v.hidden_size, _EPS)
        self.adapter = Adapter(v.intermediate_size, v.adapter_size)
        self.projector = Linear(v.adapter_size, outputs, bias=False)
        self.rope_PF = vision_rope_table(v).to(device)

    def forward(self, tiles_NSSC: Tensor) -> Tensor:
        v = self.architecture
        x = self._embed(tiles_NSSC)
        shape = x.shape
        x = self.norm_pre(x.flatten(0, 1))
        for layer in self.layers:
            x = layer(x, self.rope_PF)
        patches = self.norm_post(x).view(shape)[:, :-1]
        shuffled = pixel_shuffle(patches, v.shuffle).flatten(0, 1)
        projected: Tensor = self.projector(self.adapter(shuffled))
        return projected.view(len(tiles_NSSC), v.tile_tokens, -1)

    def _embed(self, tiles_NSSC: Tensor) -> Tensor:
        """Patches and class token where they are in the tile: [N, P, hidden]."""
        patches = to_patches(tiles_NSSC, self.architecture.patch_size)
        pixels = normalized(patches).to(self.activation_dtype)
        embedded = self.patch_embedding(pixels.flatten(0, 1)).view(*patches.shape[:2], -1)
        last = self.class_embedding.type_as(embedded).expand(len(embedded), 1, -1)
        x = torch.cat([embedded, last], dim=1)
        return x.add_(self.positional_embedding)


def to_patches(tiles_NSSC: Tensor, patch_size: int) -> Tensor:
    """[N, S, S, C] -> [N, patches, C * patch_size^2]: patches row by row.

    A patch is channel by channel, each row by row: the order of torch.nn.Unfold.
    """
    num_tiles, size, _, channels = tiles_NSSC.shape
    side = size // patch_size
    split = tiles_NSSC.view(num_tiles, side, patch_size, side, patch_size, channels)
    return split.permute(0, 1, 3, 5, 2, 4).reshape(num_tiles, side**2, -1)


def normalized(pixels: Tensor) -> Tensor:
    """uint8 -> fp32 in [-1, 1], as llama-models does it; transformers rounds to bfloat16 here."""
    return (pixels.float() / 255 - 0.5) / 0.5


def pixel_shuffle(patches: Tensor, shuffle: int) -> Tensor:
    """[N, side^2, hidden] -> [N, (side / shuffle)^2, shuffle^2 * hidden].

    Squares of patches, row by row inside and outside: what the two views and permutations of
    llama-models' `pixel_shuffle_op` come to.
    """
    num_tiles, num_patches, hidden = patches.shape
    side = int(num_patches**0.5)
    small = side // shuffle
    split = patches.reshape(num_tiles, small, shuffle, small, shuffle, hidden)
    return split.transpose(2, 3).reshape(num_tiles, small**2, shuffle**2 * hidden)
