"""Llama 4 in PyTorch, written to be trained: dense batches, right-padded, no cache.

B sequences of a batch, T tokens, H hidden, N heads, D head dim, M tokens of a batch in one row.
Parameters have the checkpoint's names. Nothing here is used to serve; `tests/eval` holds what
transformers and Caravan compute from the same files against each other.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from demo_training.vision_network import VisionModel, rotated


class RmsNorm(nn.Module):
    """x / rms(x) * weight."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, x.shape[-1:], self.weight, self.eps)


class Mlp(nn.Module):
    """down(silu(gate(x)) * up(x))."""

    def __init__(self, hidden: int, intermediate: int) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(hidden, intermediate, bias=False)
        self.up_proj = nn.Linear(hidden, intermediate, bias=False)
        self.down_proj = nn.Linear(intermediate, hidden, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))
        return out


class Experts(nn.Module):
    """Routed experts, each a matrix of its own here; the checkpoint stacks them."""

    def __init__(self, count: int, hidden: int, intermediate: int) -> None:
        super().__init__()
        self.gate_up_proj = nn.ParameterList(
            nn.Parameter(torch.empty(hidden, 2 * intermediate)) for _ in range(count)
        )
        self.down_proj = nn.ParameterList(
            nn.Parameter(torch.empty(intermediate, hidden)) for _ in range(count)
        )

    def forward(self, x_MH: Tensor, expert_M: Tensor) -> Tensor:
        order = expert_M.argsort(stable=True)
        counts = torch.bincount(expert_M, minlength=len(self.down_proj)).tolist()
        outs = []
        rows = x_MH.index_select(0, order).split(counts)
        for part, gate_up, down in zip(rows, self.gate_up_proj, self.down_proj, strict=True):
            gate, up = (part @ gate_up).chunk(2, dim=-1)
            outs.append((F.silu(gate) * up) @ down)
        return torch.empty_like(x_MH).index_copy(0, order, torch.cat(outs))


class Moe(nn.Module):
    """shared(x) + expert(sigmoid(score) * x), the expert with the highest score."""

    def __init__(self, text: dict[str, Any]) -> None:
        super().__init__()
        hidden, intermediate = text["hidden_size"], text["intermediate_size"]
        self.router = nn.Linear(hidden, text["num_local_experts"], bias=False)
        self.experts = Experts(text["num_local_experts"], hidden, intermediate)
        self.shared_expert = Mlp(hidden, intermediate)
        self.imbalance = torch.zeros(())

    def forward(self, x_BTH: Tensor) -> Tensor:
        x_MH = x_BTH.flatten(0, 1)
        logits = self.router(x_MH)
        top_M, expert_M = logits.max(dim=-1)
        shares = F.one_hot(expert_M, logits.shape[1]).float().mean(0)
        self.imbalance = (shares * logits.softmax(-1).mean(0)).sum() * logits.shape[1]
        routed = self.experts(x_MH * top_M.sigmoid()[:, None], expert_M)
        out: Tensor = self.shared_expert(x_BTH) + routed.view_as(x_BTH)
        return out


class Attention(nn.Module):
    """Chunked with RoPE and norms of q and k, or full with a temperature."""

    def __init__(self, text: dict[str, Any], *, chunked: bool) -> None:
        super().__init__()
        self.heads, self.kv_heads = text["num_attention_heads"], text["num_key_value_heads"]
        self.head_dim, self.chunk = text["head_dim"], text["attention_chunk_size"]
        self.eps, self.chunked = text["rms_norm_eps"], chunked
        hidden = text["hidden_size"]
        self.q_proj = nn.Linear(hidden, self.heads * self.head_dim, bias=False)
        self.k_proj = nn.Linear(hidden, self.kv_heads * self.head_dim, bias=False)
        self.v_proj = nn.Linear(hidden, self.kv_heads * self.head_dim, bias=False)
        self.o_proj = nn.Linear(self.heads * self.head_dim, hidden, bias=False)

    def forward(self, x_BTH: Tensor, rope: tuple[Tensor, Tensor], scale_T1: Tensor) -> Tensor:
        batch, length, _ = x_BTH.shape
        q = self._heads(self.q_proj(x_BTH), self.heads)
        k = self._heads(self.k_proj(x_BTH), self.kv_heads)
        v = self._heads(self.v_proj(x_BTH), self.kv_heads)
        if self.chunked:
            q = F.rms_norm(rotated(q, rope), (self.head_dim,), eps=self.eps)
            k = F.rms_norm(rotated(k, rope), (self.head_dim,), eps=self.eps)
        else:
            q = q * scale_T1
        group = self.heads // self.kv_heads
        k, v = k.repeat_interleave(group, dim=1), v.repeat_interleave(group, dim=1)
        out = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        out_BTX = out.transpose(1, 2).reshape(batch, -1, self.heads * self.head_dim)
        merged: Tensor = self.o_proj(out_BTX[:, :length])
        return merged

    def _heads(self, x_BTX: Tensor, heads: int) -> Tensor:
        """[rows, heads, span, D]: a row is a chunk, padded at the end, or the whole sequence."""
        _, length, width = x_BTX.shape
        span = length
        if self.chunked and length > self.chunk:
            span = self.chunk
            x_BTX = F.pad(x_BTX, (0, 0, 0, -length % span))
        return x_BTX.reshape(-1, span, heads, width // heads).transpose(1, 2)


class Layer(nn.Module):
    """A decoder layer."""

    def __init__(self, text: dict[str, Any], index: int) -> None:
        super().__init__()
        hidden, eps = text["hidden_size"], text["rms_norm_eps"]
        is_moe = (index + 1) % text["interleave_moe_layer_step"] == 0
        self.input_layernorm = RmsNorm(hidden, eps)
        self.self_attn = Attention(text, chunked=bool(text["no_rope_layers"][index]))
        self.post_attention_layernorm = RmsNorm(hidden, eps)
        self.feed_forward = Moe(text) if is_moe else Mlp(hidden, text["intermediate_size_mlp"])

    def forward(self, x: Tensor, rope: tuple[Tensor, Tensor], scale_T1: Tensor) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x), rope, scale_T1)
        out: Tensor = x + self.feed_forward(self.post_attention_layernorm(x))
        return out


class Decoder(nn.Module):
    """Embeddings in, hidden states out, both [B, T, H]."""

    def __init__(self, text: dict[str, Any]) -> None:
        super().__init__()
        self.text = text
        self.embed_tokens = nn.Embedding(text["vocab_size"], text["hidden_size"])
        self.layers = nn.ModuleList(Layer(text, i) for i in range(text["num_hidden_layers"]))
        self.norm = RmsNorm(text["hidden_size"], text["rms_norm_eps"])
        self.rope = _text_rope(text)
        self.first_full = text["no_rope_layers"].index(0)

    def forward(self, x: Tensor) -> Tensor:
        places = torch.arange(1, x.shape[1] + 1) // self.text["floor_scale"]
        scale_T1 = 1 + self.text["attn_scale"] * torch.log1p(places.float())[:, None]
        for layer in self.layers:
            x = layer(x, self.rope, scale_T1)
        out: Tensor = self.norm(x)
        return out

    def attention(self, index: int) -> Attention:
        """Of one layer."""
        layer = self.layers[index]
        assert isinstance(layer, Layer)
        return layer.self_attn


def _text_rope(text: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """Cosines and sines of a chunk: [chunk, D / 2] each; long wavelengths are scaled."""
    exponents = torch.arange(0, text["head_dim"], 2).double() / text["head_dim"]
    frequencies = text["rope_theta"] ** -exponents
    scaling = text["rope_scaling"]
    wavelengths = 2 * math.pi / frequencies
    longest = scaling["original_max_position_embeddings"] / scaling["low_freq_factor"]
    frequencies = torch.where(wavelengths > longest, frequencies / scaling["factor"], frequencies)
    angles = torch.outer(torch.arange(text["attention_chunk_size"]).double(), frequencies)
    return angles.cos().float(), angles.sin().float()


class LanguageModel(nn.Module):
    """The decoder and its head, under the checkpoint's names."""

    def __init__(self, text: dict[str, Any]) -> None:
        super().__init__()
        self.model = Decoder(text)
        self.lm_head = nn.Linear(text["hidden_size"], text["vocab_size"], bias=False)


class Projector(nn.Module):
    """Rows of the encoder to the decoder's width."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.linear_1 = nn.Linear(inputs, outputs, bias=False)


class Llama4(nn.Module):
    """Words and tiles in, logits of chosen rows out."""

    def __init__(self, text: dict[str, Any], vision: dict[str, Any]) -> None:
        super().__init__()
        self.language_model = LanguageModel(text)
        self.vision_model = VisionModel(vision)
        self.multi_modal_projector = Projector(vision["vision_output_dim"], text["hidden_size"])
        self.apply(_initialize)
        _shrink_outputs(self, text["num_hidden_layers"])
        begin_with_copying(self)

    def see(self, tiles: Tensor) -> Tensor:
        """Tiles to rows that stand where word embeddings would: [tiles, tile_tokens, H]."""
        rows: Tensor = self.multi_modal_projector.linear_1(self.vision_model(tiles))
        return rows

    def forward(
        self, tokens_BT: Tensor, tiles: Tensor | None, patch_rows: Tensor, rows: Tensor
    ) -> Tensor:
        """Logits after `rows`; both kinds of rows index the flattened batch.

        `patch_rows` are the places of all patches, tile by tile.
        """
        decoder = self.language_model.model
        x = decoder.embed_tokens(tokens_BT)
        if tiles is not None:
            seen = self.see(tiles).flatten(0, 1)
            x = x.flatten(0, 1).index_copy(0, patch_rows, seen).view_as(x)
        hidden = decoder(x).flatten(0, 1).index_select(0, rows)
        logits: Tensor = self.language_model.lm_head(hidden)
        return logits

    @torch.no_grad()
    def shrink_rows(self, tiles: Tensor) -> None:
        """Scales the projector so that rows of these tiles are about as large as embeddings."""
        projector = self.multi_modal_projector.linear_1
        free = self.language_model.model.attention(0).head_dim
        projector.weight[-free:] = 0
        projector.weight /= self.see(tiles).pow(2).mean().sqrt()

    def imbalance(self) -> Tensor:
        """How unevenly routers choose, on the last batch: 1 if evenly, at most the experts."""
        found = [module.imbalance for module in self.modules() if isinstance(module, Moe)]
        return torch.stack(found).mean()

    def checkpoint(self) -> dict[str, Tensor]:
        """The parameters under the checkpoint's names, experts stacked."""
        stacked: dict[str, list[Tensor]] = {}
        for name, value in self.state_dict().items():
            stacked.setdefault(_stored_name(name), []).append(value)
        return {
            name: torch.stack(values) if _EXPERTS in name else values[0]
            for name, values in stacked.items()
        }

    def load_checkpoint(self, tensors: Mapping[str, Tensor]) -> None:
        """The reverse."""
        state = {}
        for name in self.state_dict():
            stored = tensors[_stored_name(name)].float()
            state[name] = stored[int(name.rsplit(".", 1)[1])] if _EXPERTS in name else stored
        self.load_state_dict(state)


_EXPERTS = ".experts."


def _stored_name(name: str) -> str:
    return name.rsplit(".", 1)[0] if _EXPERTS in name else name


def _initialize(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, std=module.in_features**-0.5)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Embedding):
        nn.init.normal_(module.weight, std=1.0)
    elif isinstance(module, Experts):
        for weight in module.parameters():
            nn.init.normal_(weight, std=weight.shape[0] ** -0.5)


def _shrink_outputs(model: Llama4, layers: int) -> None:
    """What adds to the residual stream starts small; routers and the head at a tenth."""
    for name, weight in model.named_parameters():
        if "o_proj.weight" in name or "down_proj" in name or "fc2.weight" in name:
            weight.data.mul_((2 * layers) ** -0.5)
        elif "router" in name or "lm_head" in name:
            weight.data.mul_(0.1)
    model.vision_model.vision_adapter["mlp"].fc2.weight.data.mul_((2 * layers) ** 0.5)  # type: ignore[operator, union-attr]  # its modules are not declared


_CONSTANT = 4.0  # of channel 0 in every word's embedding
_FAST_PAIRS = 7  # of RoPE, that turn by a tenth of a circle and less from token to token
_SHARPNESS = 2.5  # of the head that finds an earlier place


@torch.no_grad()
def begin_with_copying(model: Llama4) -> None:
    """Sets up one induction head: find where the current token stood before, copy what followed.

    A model finds that out by itself, but on few tokens the wait for it is most of the training. In
    layer 0 a head looks one token back, by RoPE alone, and puts that token into channels that
    embeddings leave free. In the first full layer a head compares the current token with those
    channels, and copies the token that it found towards the head's own idea of that token.
    """
    decoder, head = model.language_model.model, model.language_model.lm_head
    back, find = decoder.attention(0), decoder.attention(decoder.first_full)
    words = decoder.embed_tokens.weight
    dim, hidden = back.head_dim, words.shape[1]
    words[:, 0] = _CONSTANT
    words[:, hidden - dim :] = 0
    token = F.pad(nn.init.orthogonal_(torch.empty(dim, hidden - dim)), (0, dim))
    free = F.pad(torch.eye(dim), (hidden - dim, 0))
    _look_back(back, decoder.rope, token, free)
    find.q_proj.weight[:dim] = _SHARPNESS * token
    find.k_proj.weight[:dim] = free
    find.v_proj.weight[:dim] = token
    find.o_proj.weight[:, :dim] = token.T
    head.weight.copy_(words * hidden**-0.5)
    head.weight[:, 0] = 0


def _look_back(
    attention: Attention, rope: tuple[Tensor, Tensor], token: Tensor, free: Tensor
) -> None:
    """The first head sees the token before, and writes it to the free channels."""
    dim = attention.head_dim
    cos, sin = (table[1, :_FAST_PAIRS] for table in rope)
    angles = torch.atan2(sin, cos)
    attention.k_proj.weight[:dim] = 0
    attention.k_proj.weight[:dim, 0] = _turned(0 * angles, dim)
    attention.q_proj.weight[:dim] = 0
    attention.q_proj.weight[:dim, 0] = _turned(-angles, dim)
    attention.v_proj.weight[:dim] = token
    attention.o_proj.weight[:, :dim] = free.T


def _turned(angles: Tensor, dim: int) -> Tensor:
    """A vector whose first pairs point in these directions: [dim]."""
    pairs = torch.stack([angles.cos(), angles.sin()], dim=1).flatten()
    return F.pad(pairs, (0, dim - len(pairs)))
