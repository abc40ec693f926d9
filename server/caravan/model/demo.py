"""The bundled demo model: a small Llama 4 with random weights, made on the spot.

It has the real structure: chunked layers with QK norm and scaled RoPE, full layers, routed and
shared experts, a vision encoder with tiles of the real size, and a tokenizer of bytes and Llama 4's
special tokens. It has learned nothing: its replies are random lower-case letters and spaces, whose
choice depends on words and pictures alike. It is there to try the server, its API and its cache (a
chunk has 256 tokens) without a download.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from caravan.model.architecture import Architecture
from caravan.model.manifest import parameters
from caravan.model.parameters import Parameter, Source

SPECIAL_TOKENS = (
    "<|begin_of_text|>",
    "<|end_of_text|>",
    "<|fim_prefix|>",
    "<|fim_middle|>",
    "<|fim_suffix|>",
    "<|header_start|>",
    "<|header_end|>",
    "<|eom|>",
    "<|eot|>",
    "<|step|>",
    "<|python_start|>",
    "<|python_end|>",
    "<|finetune_right_pad|>",
    "<|image_start|>",
    "<|image_end|>",
    "<|tile_x_separator|>",
    "<|tile_y_separator|>",
    "<|image|>",
    "<|patch|>",
)
VOCAB_SIZE = 256 + len(SPECIAL_TOKENS)

_TEXT: dict[str, Any] = {
    "model_type": "llama4_text",
    "dtype": "float32",
    "vocab_size": VOCAB_SIZE,
    "hidden_size": 256,
    "intermediate_size": 256,
    "intermediate_size_mlp": 512,
    "num_hidden_layers": 8,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "max_position_embeddings": 8192,
    "num_local_experts": 4,
    "num_experts_per_tok": 1,
    "interleave_moe_layer_step": 1,
    "no_rope_layers": [1, 1, 1, 0, 1, 1, 1, 0],
    "attention_chunk_size": 256,
    "floor_scale": 256,
    "attn_scale": 0.1,
    "attn_temperature_tuning": True,
    "use_qk_norm": True,
    "rms_norm_eps": 1e-5,
    "rope_theta": 500000.0,
    "rope_scaling": {
        "rope_type": "llama3",
        "factor": 16.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 1.0,
        "original_max_position_embeddings": 256,
    },
    "tie_word_embeddings": False,
    "hidden_act": "silu",
}

_VISION: dict[str, Any] = {
    "model_type": "llama4_vision_model",
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 256,
    "image_size": 336,  # with patches of 14, 144 tokens per tile, as the real models have
    "patch_size": 14,
    "pixel_shuffle_ratio": 0.5,
    "projector_input_dim": 64,
    "projector_output_dim": 64,
    "vision_output_dim": 64,
    "num_channels": 3,
    "hidden_act": "gelu",
    "rope_theta": 10000.0,
}

# Channel 0 of the residual stream is a constant: embeddings set it, no layer reads or writes it,
# and lm_head turns it into a bias per token. Rows of a picture have 0 there, and are never sampled.
_CONSTANT = 16.0
_BIAS_NEVER = -8.0
_BIAS_END = 0.1  # replies end after some 150 letters at temperature 0.6; greedy ones do not
_GELU_GAIN = np.float32(2.0)  # GELU halves what passes: so rows of a picture are as large as words
_PLACE_GAIN = np.float32(2.0)  # patches of one color are still unlike each other
_LETTERS = b"abcdefghijklmnopqrstuvwxyz "


def write_demo(directory: Path) -> None:
    """Writes config.json, generation_config.json, tokenizer.json and model.safetensors.

    The same bytes every time, about 40 MB, in about a second.
    """
    ids = special_token_ids()
    generation = {
        "bos_token_id": ids["<|begin_of_text|>"],
        "eos_token_id": [ids[name] for name in ("<|end_of_text|>", "<|eom|>", "<|eot|>")],
    }
    config = {
        "architectures": ["Llama4ForConditionalGeneration"],
        "model_type": "llama4",
        "dtype": "float32",
        **generation,
        "boi_token_index": ids["<|image_start|>"],
        "eoi_token_index": ids["<|image_end|>"],
        "image_token_index": ids["<|patch|>"],
        "tie_word_embeddings": False,
        "text_config": {**_TEXT, **generation},
        "vision_config": _VISION,
    }
    random = np.random.default_rng(0)
    tensors = {
        _stored_name(parameter, source): _weights(parameter, source, random)
        for parameter in parameters(Architecture.from_config(config))
        for source in parameter.sources
    }
    _write_json(directory / "config.json", config)
    _write_json(
        directory / "generation_config.json",
        {**generation, "do_sample": True, "temperature": 0.6, "top_p": 0.9},
    )
    write_byte_tokenizer(directory)
    save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})


def special_token_ids() -> dict[str, int]:
    """Ids of the special tokens; those below are the bytes."""
    return {name: 256 + i for i, name in enumerate(SPECIAL_TOKENS)}


def write_byte_tokenizer(directory: Path) -> None:
    """Writes a tokenizer.json with one token per byte (id = byte) and Llama 4's special tokens."""
    added = [
        {
            "id": token_id,
            "content": name,
            "special": True,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
        }
        for name, token_id in special_token_ids().items()
    ]
    split = {
        "type": "Split",
        "pattern": {"Regex": r"\s+|\S+"},
        "behavior": "Isolated",
        "invert": False,
    }
    byte_level = {
        "type": "ByteLevel",
        "add_prefix_space": False,
        "trim_offsets": True,
        "use_regex": False,
    }
    _write_json(
        directory / "tokenizer.json",
        {
            "version": "1.0",
            "truncation": None,
            "padding": None,
            "added_tokens": added,
            "normalizer": None,
            "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, byte_level]},
            "post_processor": None,
            "decoder": byte_level,
            "model": {
                "type": "BPE",
                "dropout": None,
                "unk_token": None,
                "continuing_subword_prefix": None,
                "end_of_word_suffix": None,
                "fuse_unk": False,
                "byte_fallback": False,
                "ignore_merges": False,
                "vocab": {character: byte for byte, character in enumerate(_byte_alphabet())},
                "merges": [],
            },
        },
    )


def _byte_alphabet() -> list[str]:
    """GPT-2's character for each byte: itself if printable, else the next one above 255."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(0x100, 0x200))
    return [chr(byte if byte in printable else next(others)) for byte in range(256)]


def _stored_name(parameter: Parameter, source: Source) -> str:
    return source.tensor if parameter.part == "vision" else f"language_model.{source.tensor}"


def _weights(
    parameter: Parameter, source: Source, random: np.random.Generator
) -> np.ndarray[Any, np.dtype[np.float32]]:
    if parameter.part == "vision":
        return _vision_weights(parameter, source, random)
    if len(source.shape) == 1:
        weights = np.ones(source.shape, np.float32)
        weights[0] = parameter.name == "norm.weight"
        return weights
    fan_in = source.shape[-2 if source.transposed else -1]
    weights = random.standard_normal(source.shape, np.float32) / np.float32(fan_in**0.5)
    if parameter.name == "embed_tokens.weight":
        weights *= fan_in**0.5
        weights[:, 0] = _CONSTANT
    elif parameter.name == "lm_head.weight":
        weights *= 2
        weights[special_token_ids()["<|eot|>"]] = 0
        weights[:, 0] = _output_bias()
    elif source.transposed:
        weights[..., 0] = 0
    elif parameter.name.endswith(("out.weight", "down.weight")):
        weights[0] = 0
    return weights


def _vision_weights(
    parameter: Parameter, source: Source, random: np.random.Generator
) -> np.ndarray[Any, np.dtype[np.float32]]:
    if "norm" in parameter.name or parameter.name.endswith(".bias"):
        return np.full(source.shape, not parameter.name.endswith(".bias"), np.float32)
    weights = random.standard_normal(source.shape, np.float32)
    if parameter.name.endswith("_embedding"):
        return weights * _PLACE_GAIN
    weights /= np.float32(source.shape[-1] ** 0.5)
    if parameter.name.endswith(("fc2.weight", "projector.weight")):
        # GELU's outputs have a mean above 0; it would make all rows of a picture alike
        weights -= weights.mean(axis=1, keepdims=True)
        weights *= _GELU_GAIN
        weights[0] = 0
    return weights


def _output_bias() -> np.ndarray[Any, np.dtype[np.float32]]:
    bias = np.full(VOCAB_SIZE, _BIAS_NEVER, np.float32)
    bias[list(_LETTERS)] = 0
    bias[special_token_ids()["<|eot|>"]] = _BIAS_END
    return bias


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
