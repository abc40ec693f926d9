"""The decoder stack, the language-model head, and the vision encoder beside them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

import caravan_kernels as kernels
from caravan.model.architecture import Architecture
from caravan.model.attention import Attention, KindInput
from caravan.model.feed_forward import Dense, MixtureOfExperts
from caravan.model.layers import Embedding, RMSNorm, parameter
from caravan.model.parallel import TensorParallel
from caravan.model.rope import rope_table, temperature
from caravan.model.side_stream import SideStream
from caravan.model.step import LayerCache, StepInput
from caravan.model.vision import VisionEncoder

Terms = tuple[Tensor, ...]


class Layer(nn.Module):
    """x + attention(norm(x)), then x + ffn(norm(x)); the second sum is left to the next norm."""

    def __init__(
        self, architecture: Architecture, index: int, group: TensorParallel, side: SideStream
    ) -> None:
        super().__init__()
        a = architecture
        self.chunked = a.chunked[index]
        self.input_norm = RMSNorm(a.hidden_size, a.rms_norm_eps)
        self.attention = Attention(a, chunked=self.chunked, group=group)
        self.ffn_norm = RMSNorm(a.hidden_size, a.rms_norm_eps)
        self.ffn = MixtureOfExperts(a, group, side) if a.moe[index] else Dense(a, group)

    def forward(
        self, x: Tensor, terms: Terms, kind: KindInput, cache: LayerCache
    ) -> tuple[Tensor, Terms]:
        """x, and terms to be added to it, before and after the layer."""
        x, normed = self.input_norm(x, terms)
        x, normed = self.ffn_norm(x, self.attention(normed, kind, cache))
        return x, self.ffn(normed, kind.segments.num_rows)


class Head(nn.Module):
    """x [S, hidden] -> logits [S, P] of this rank's part of the vocabulary."""

    def __init__(self, weight: nn.Parameter) -> None:
        super().__init__()
        self.weight = weight

    def forward(self, x: Tensor) -> Tensor:
        return kernels.linear(x, self.weight)


class Llama4(nn.Module):
    """Token ids to logits, over paged keys and values.

    `max_model_len` bounds the RoPE table. Activations are fp32 on the CPU, whatever the weights
    are: its kernels widen weights as they read them. Elsewhere they have the weights' dtype.
    """

    def __init__(
        self,
        architecture: Architecture,
        *,
        dtype: torch.dtype,
        device: torch.device,
        max_model_len: int,
        group: TensorParallel | None = None,
    ) -> None:
        super().__init__()
        a, group = architecture, group or TensorParallel()
        self.architecture = a
        self.group = group
        self.activation_dtype = torch.float32 if device.type == "cpu" else dtype
        previous = torch.get_default_dtype()
        torch.set_default_dtype(dtype)
        try:
            with device:
                self.embed_tokens = Embedding(a.vocab_size, a.hidden_size, group)
                side = SideStream(device)
                self.layers = nn.ModuleList(Layer(a, i, group, side) for i in range(a.num_layers))
                self.norm = RMSNorm(a.hidden_size, a.rms_norm_eps)
                tied = self.embed_tokens.weight if a.tie_word_embeddings else None
                head = parameter(group.share(a.vocab_size), a.hidden_size) if tied is None else tied
                self.lm_head = Head(head)
                self.vision = self._new_vision(device)
        finally:
            torch.set_default_dtype(previous)
        self.rope_table = rope_table(a, min(a.chunk_len, max_model_len)).to(device)

    def _new_vision(self, device: torch.device) -> VisionEncoder | None:
        vision = self.architecture.vision
        if vision is None:
            return None
        return VisionEncoder(
            vision,
            outputs=self.architecture.hidden_size,
            activation_dtype=self.activation_dtype,
            device=device,
        )

    @torch.inference_mode()
    def encode_tiles(self, tiles_NSSC: Tensor) -> Tensor:
        """Tiles uint8 [N, tile_size, tile_size, 3] -> [N, tile_tokens, hidden], on every rank."""
        assert self.vision is not None, "the model reads text only"
        own_NSSC = tiles_NSSC[self.group.own(len(tiles_NSSC))]
        if len(own_NSSC):
            features = self.vision(own_NSSC)
        else:  # the others' tiles are received with the shape and type of one's own
            shape = (0, self.vision.architecture.tile_tokens, self.architecture.hidden_size)
            features = own_NSSC.new_empty(shape, dtype=self.activation_dtype)
        return self.group.collect(features, len(tiles_NSSC))

    def forward(
        self, step: StepInput, caches: Sequence[LayerCache], out_SP: Tensor | None = None
    ) -> Tensor:
        """One step: logits fp32 [S, P], and all K and V in the pages of `caches`.

        The logits, of this rank's part of the vocabulary, are written to `out_SP` if it is given.
        """
        return self.logits(self.hidden(step, caches), out_SP)

    @torch.inference_mode()
    def logits(self, x_SH: Tensor, out_SP: Tensor | None = None) -> Tensor:
        """Of rows that `hidden` gave: fp32 [S, P], of this rank's part of the vocabulary."""
        logits: Tensor = self.lm_head(x_SH)
        return logits.float() if out_SP is None else out_SP.copy_(logits)

    @torch.inference_mode()
    def hidden(self, step: StepInput, caches: Sequence[LayerCache]) -> Tensor:
        """One step up to the head: the rows [S, hidden] whose logits are wanted."""
        x = self.embed_tokens(step.token_ids_T).to(self.activation_dtype)
        if step.image_rows_I is not None:
            assert step.image_features_IH is not None, step
            x[step.image_rows_I] = step.image_features_IH.to(x.dtype)
        kinds = {True: self._chunked_input(step), False: self._full_input(step)}
        terms: Terms = ()
        for layer, cache in zip(self.layers, caches, strict=True):
            kind = kinds[bool(layer.chunked)]
            assert kind is not None, (layer.chunked, step)
            x, terms = layer(x, terms, kind, cache)
        rows_S = step.sample_rows_S
        if rows_S is not None:  # only these go through the head, the model's largest weight
            x, terms = x[rows_S], tuple(term[rows_S] for term in terms)
        normed: Tensor = self.norm(x, terms)[1]
        return normed

    def _chunked_input(self, step: StepInput) -> KindInput | None:
        if step.chunked is None:
            return None
        rows_T = step.positions_T % self.architecture.chunk_len
        return KindInput(step.chunked, rope_TF=self.rope_table[rows_T])

    def _full_input(self, step: StepInput) -> KindInput | None:
        if step.full is None:
            return None
        tuning = self.architecture.temperature_tuning
        scale_T = None if tuning is None else temperature(step.positions_T, tuning)
        return KindInput(step.full, temperature_T=scale_T)
