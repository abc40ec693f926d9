"""Sizes and layer pattern of a Llama 4 model, from a Hugging Face `config.json`.

    kind      config says            attention reads                    position encoding
    chunked   no_rope_layers[i] = 1  the current chunk up to the token  RoPE
    full      no_rope_layers[i] = 0  everything up to the token         none (NoPE)

A field that is absent has the default of Hugging Face's `Llama4TextConfig`, because files are
written without the fields that equal it. A value that this release cannot serve is refused here
by name, never ignored.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Self, cast, get_args

from caravan.errors import CheckpointError, ConfigError
from caravan.kv_layout import KVLayout
from caravan.model.fields import Section, read_object
from caravan.model.vision_architecture import VisionArchitecture, read_max_tiles

WeightDtype = Literal["bfloat16", "float16", "float32"]
ITEMSIZES: dict[WeightDtype, int] = {"bfloat16": 2, "float16": 2, "float32": 4}  # bytes

_ARCHITECTURES = ("Llama4ForConditionalGeneration", "Llama4ForCausalLM")
_MOST_LAYERS = 1024  # a bound against damaged files: every layer costs a table entry


@dataclass(frozen=True, kw_only=True, slots=True)
class Llama3Scaling:
    """RoPE scaling of type `llama3`, which divides low frequencies by `factor`.

    With `low_freq_factor == high_freq_factor` (Scout) the ramp between the two wavelengths is a
    step: the usual interpolation would divide by zero.
    """

    factor: float
    low_freq_factor: float  # wavelengths above original / low are divided by factor
    high_freq_factor: float  # wavelengths below original / high stay; at least low_freq_factor
    original_max_position_embeddings: int  # tokens


@dataclass(frozen=True, kw_only=True, slots=True)
class TemperatureTuning:
    """Queries of full layers grow with their position p (from 0).

    They are multiplied by `1 + attn_scale * log(floor((p + 1) / floor_scale) + 1)`.
    """

    floor_scale: int  # tokens
    attn_scale: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Architecture:
    """The model that a checkpoint holds."""

    hidden_size: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    vocab_size: int
    rms_norm_eps: float
    max_position_embeddings: int  # tokens
    chunked: tuple[bool, ...]  # per layer: RoPE and chunk-local; else NoPE and full
    moe: tuple[bool, ...]  # per layer: router, experts and a shared expert; else dense
    num_experts: int  # 0 if no layer has experts
    expert_intermediate_size: int  # of a routed expert and of the shared expert
    dense_intermediate_size: int
    use_qk_norm: bool  # on chunked layers only
    chunk_len: int  # tokens; max_position_embeddings if the model has no chunks
    rope_theta: float
    rope_scaling: Llama3Scaling | None
    temperature_tuning: TemperatureTuning | None  # on full layers only
    tie_word_embeddings: bool  # lm_head is embed_tokens
    dtype: WeightDtype
    vision: VisionArchitecture | None  # None: it reads text only

    @property
    def num_layers(self) -> int:
        """Decoder layers."""
        return len(self.chunked)

    @classmethod
    def from_directory(cls, directory: Path) -> Self:
        """Reads `directory/config.json`, and the image processor's file if there is one.

        Raises CheckpointError, with the file and the field.
        """
        path = directory / "config.json"
        config = read_object(path)
        quantized = directory / "hf_quant_config.json"
        if quantized.exists():
            raise CheckpointError(_quantized(f"{quantized}: quantization", read_object(quantized)))
        architecture = cls.from_config(config, origin=str(path))
        if architecture.vision is None:
            return architecture
        max_tiles = read_max_tiles(directory, architecture.vision)
        return replace(architecture, vision=replace(architecture.vision, max_tiles=max_tiles))

    @classmethod
    def from_config(cls, config: Mapping[str, Any], origin: str = "config.json") -> Self:
        """The model of a parsed config.json; `origin` names the file in errors.

        Raises CheckpointError for a model that is not Llama 4, or that this release cannot serve.
        """
        top = Section(config, f"{origin}: ")
        text = _text_section(top)
        _refuse_unsupported(top, text)
        num_layers = text.integer("num_hidden_layers", 48)
        if num_layers > _MOST_LAYERS:
            raise text.refuse("num_hidden_layers", f"it must be at most {_MOST_LAYERS}")
        num_heads = text.integer("num_attention_heads", 40)
        max_position_embeddings = text.integer("max_position_embeddings", 131072)
        chunk_len = text.optional_integer("attention_chunk_size", 8192)
        chunked = _chunked_layers(text, num_layers, has_chunks=chunk_len is not None)
        moe = _moe_layers(text, num_layers)
        return cls(
            hidden_size=text.integer("hidden_size", 5120),
            num_heads=num_heads,
            num_kv_heads=_num_kv_heads(text, num_heads),
            head_dim=_head_dim(text, num_heads),
            vocab_size=text.integer("vocab_size", 202048),
            rms_norm_eps=text.number("rms_norm_eps", 1e-5),
            max_position_embeddings=max_position_embeddings,
            chunked=chunked,
            moe=moe,
            num_experts=text.integer("num_local_experts", 16) if any(moe) else 0,
            expert_intermediate_size=text.integer("intermediate_size", 8192),
            dense_intermediate_size=text.integer("intermediate_size_mlp", 16384),
            use_qk_norm=text.flag("use_qk_norm", True),
            chunk_len=chunk_len or max_position_embeddings,
            rope_theta=_rope_section(text).number("rope_theta", 500000.0),
            rope_scaling=_rope_scaling(text, max_position_embeddings),
            temperature_tuning=_temperature_tuning(text),
            tie_word_embeddings=text.flag(
                "tie_word_embeddings", top.flag("tie_word_embeddings", False)
            ),
            dtype=_dtype(top, text),
            vision=_vision(top, text),
        )

    def kv_layout(self, block_len: int, itemsize: int, tp_size: int = 1) -> KVLayout:
        """The cache geometry on one of `tp_size` ranks.

        `block_len` counts tokens, `itemsize` is bytes per key or value element. Raises ConfigError
        if the heads cannot be split over the ranks.
        """
        self._check_split(tp_size)
        num_chunked = sum(self.chunked)
        num_full = self.num_layers - num_chunked
        slice_layers = math.gcd(num_chunked, num_full)
        token_elements = 2 * self.num_kv_heads // tp_size * self.head_dim
        return KVLayout(
            block_len=block_len,
            chunk_len=self.chunk_len,
            full_slices=num_full // slice_layers,
            chunked_slices=num_chunked // slice_layers,
            slice_layers=slice_layers,
            page_bytes=slice_layers * block_len * token_elements * itemsize,
        )

    def _check_split(self, tp_size: int) -> None:
        divided = {
            "key-value heads": self.num_kv_heads,
            "words of the vocabulary": self.vocab_size,
            "columns of its experts": self.expert_intermediate_size if any(self.moe) else 0,
            "columns of its dense layers": 0 if all(self.moe) else self.dense_intermediate_size,
        }
        for what, count in divided.items():
            if count % tp_size:
                raise ConfigError(
                    f"--tensor-parallel-size is {tp_size}; it must divide the model's {count} "
                    f"{what}"
                )


def _text_section(top: Section) -> Section:
    model_type = top.values.get("model_type")
    architectures = top.items("architectures")
    if architectures and not set(map(str, architectures)) & set(_ARCHITECTURES):
        raise top.refuse("architectures", f"Caravan serves {' and '.join(_ARCHITECTURES)} only")
    if model_type == "llama4_text":
        return top
    if model_type != "llama4":
        raise top.refuse("model_type", 'Caravan serves "llama4" and "llama4_text" only')
    text = top.section("text_config")
    if text.values.get("model_type", "llama4_text") != "llama4_text":
        raise text.refuse("model_type", 'Caravan serves "llama4_text" only')
    return text


def _refuse_unsupported(top: Section, text: Section) -> None:
    for section in (top, text):
        for name in ("quantization_config", "compression_config"):
            found = section.values.get(name)
            if found is not None:
                raise CheckpointError(_quantized(f"{section.where}{name}", found))
    if text.values.get("hidden_act", "silu") != "silu":
        raise text.refuse("hidden_act", 'Caravan supports "silu" only')
    if text.values.get("attention_bias", False) is not False:
        raise text.refuse("attention_bias", "Caravan supports false only")


def _vision(top: Section, text: Section) -> VisionArchitecture | None:
    if text is top or top.values.get("vision_config") is None:
        return None
    return VisionArchitecture.from_section(top.section("vision_config"))


def _quantized(where: str, found: object) -> str:
    method = "unknown"
    if isinstance(found, dict):
        inner = found.get("quantization")
        names = (found.get("quant_method"), found.get("quant_algo"))
        inner_names = (inner.get("quant_algo"),) if isinstance(inner, dict) else ()
        method = next((str(name) for name in (*names, *inner_names) if name), method)
    return (
        f"{where}: the weights are quantized (method: {method}); this release reads bfloat16, "
        "float16 and float32 weights: use the original, unquantized checkpoint"
    )


def _num_kv_heads(text: Section, num_heads: int) -> int:
    num_kv_heads = text.optional_integer("num_key_value_heads", 8) or num_heads
    if num_heads % num_kv_heads:
        raise text.refuse(
            "num_key_value_heads", f"it must divide num_attention_heads, which is {num_heads}"
        )
    return num_kv_heads


def _head_dim(text: Section, num_heads: int) -> int:
    head_dim = text.optional_integer("head_dim", 128)
    if head_dim is None:
        hidden_size = text.integer("hidden_size", 5120)
        if hidden_size % num_heads:
            raise text.refuse(
                "head_dim",
                f"so num_attention_heads, {num_heads}, must divide hidden_size, {hidden_size}",
            )
        head_dim = hidden_size // num_heads
    if head_dim % 2:
        raise CheckpointError(
            f"{text.where}head_dim is {head_dim}; RoPE rotates pairs, so it must be even"
        )
    return head_dim


def _chunked_layers(text: Section, num_layers: int, *, has_chunks: bool) -> tuple[bool, ...]:
    listed = text.items("no_rope_layers")
    if listed:
        if len(listed) != num_layers:
            raise text.refuse(
                "no_rope_layers", f"it has {len(listed)} entries for {num_layers} layers"
            )
        if any(entry not in (0, 1) for entry in listed):
            raise text.refuse("no_rope_layers", "its entries must be 0 (NoPE) or 1 (RoPE)")
        chunked = tuple(bool(entry) for entry in listed)
    else:
        interval = 0
        if text.values.get("no_rope_layer_interval", 4) is not None:
            interval = text.integer("no_rope_layer_interval", 4, minimum=0)
        chunked = tuple(not interval or (i + 1) % interval != 0 for i in range(num_layers))
    _check_layer_types(text, chunked, has_chunks=has_chunks)
    return chunked


def _check_layer_types(text: Section, chunked: tuple[bool, ...], *, has_chunks: bool) -> None:
    layer_types = text.items("layer_types")
    if layer_types is None:
        return
    names = ("full_attention", "chunked_attention")
    if len(layer_types) != len(chunked) or any(kind not in names for kind in layer_types):
        raise text.refuse(
            "layer_types",
            f'it must list "chunked_attention" or "full_attention" for each of the '
            f"{len(chunked)} layers",
        )
    expected = [names[is_chunked] for is_chunked in chunked]
    if has_chunks and layer_types != expected:
        raise text.refuse(
            "layer_types",
            "it must agree with no_rope_layers: Caravan supports RoPE with chunked attention and "
            "NoPE with full attention",
        )


def _moe_layers(text: Section, num_layers: int) -> tuple[bool, ...]:
    listed = text.items("moe_layers")
    if listed is None:
        step = text.integer("interleave_moe_layer_step", 1, minimum=0)
        moe = tuple(step > 0 and (i + 1) % step == 0 for i in range(num_layers))
    else:
        if any(type(i) is not int or not 0 <= i < num_layers for i in listed):
            raise text.refuse(
                "moe_layers", f"its entries must be layer numbers from 0 to {num_layers - 1}"
            )
        moe = tuple(i in listed for i in range(num_layers))
    if any(moe) and text.values.get("num_experts_per_tok", 1) != 1:
        raise text.refuse("num_experts_per_tok", "Caravan supports 1 only")
    return moe


def _rope_section(text: Section) -> Section:
    """Old files: `rope_theta` beside `rope_scaling`; new ones: both inside `rope_parameters`."""
    for name in ("rope_scaling", "rope_parameters"):
        if text.values.get(name):
            inner = text.section(name)
            theta = inner.values.get("rope_theta", text.values.get("rope_theta", 500000.0))
            return Section({**inner.values, "rope_theta": theta}, inner.where)
    return text


def _rope_scaling(text: Section, max_position_embeddings: int) -> Llama3Scaling | None:
    rope = _rope_section(text)
    if rope.values.get("partial_rotary_factor") not in (None, 1):
        raise rope.refuse("partial_rotary_factor", "Caravan supports 1 only")
    if rope is text:
        return None
    name = "rope_type" if "rope_type" in rope.values else "type"
    rope_type = rope.values.get(name)
    if rope_type in (None, "default") and not any(
        isinstance(value, dict) for value in rope.values.values()
    ):
        return None
    if rope_type != "llama3":
        raise rope.refuse(name, 'Caravan supports "default" and "llama3" only, one for all layers')
    for required in ("factor", "low_freq_factor", "high_freq_factor"):
        if required not in rope.values:
            raise rope.refuse(required, "RoPE scaling of type llama3 needs it")
    scaling = Llama3Scaling(
        factor=rope.number("factor", 1.0),
        low_freq_factor=rope.number("low_freq_factor", 1.0),
        high_freq_factor=rope.number("high_freq_factor", 1.0),
        original_max_position_embeddings=rope.integer(
            "original_max_position_embeddings", max_position_embeddings
        ),
    )
    if scaling.high_freq_factor < scaling.low_freq_factor:
        raise rope.refuse(
            "high_freq_factor", f"it must be at least low_freq_factor, {scaling.low_freq_factor}"
        )
    return scaling


def _temperature_tuning(text: Section) -> TemperatureTuning | None:
    enabled = text.values.get("attn_temperature_tuning", True)
    if enabled is not None and type(enabled) not in (bool, int):
        raise text.refuse("attn_temperature_tuning", "it must be true, false or an integer")
    if not enabled:
        return None
    return TemperatureTuning(
        floor_scale=text.integer("floor_scale", 8192), attn_scale=text.number("attn_scale", 0.1)
    )


def _dtype(top: Section, text: Section) -> WeightDtype:
    for section in (top, text):
        for name in ("dtype", "torch_dtype"):
            value = section.values.get(name)
            if value is None:
                continue
            if value not in get_args(WeightDtype):
                supported = ", ".join(get_args(WeightDtype))
                raise section.refuse(name, f"Caravan supports {supported}")
            return cast("WeightDtype", value)
    return "bfloat16"
