"""Tiny random Llama 4 checkpoints, written by transformers in Hugging Face's own format.

`write_checkpoint` writes one, `load_oracle` loads it into transformers' model. The weights have
enough spread that greedy decoding neither hangs on near-ties nor repeats one token. Imports
transformers, and so torch, only when it is called.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from byte_tokenizer import VOCAB_SIZE, special_token_ids, write_byte_tokenizer

_SPECIALS = special_token_ids()

_LLAMA3_STEP = {
    "rope_type": "llama3",
    "rope_theta": 500000.0,
    "factor": 16.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 1.0,
    "original_max_position_embeddings": 32,
}
_PLAIN_ROPE = {"rope_type": "default", "rope_theta": 500000.0}

_SCOUT: dict[str, Any] = {
    "vocab_size": VOCAB_SIZE,
    "hidden_size": 64,
    "intermediate_size": 48,
    "intermediate_size_mlp": 80,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 512,
    "num_local_experts": 4,
    "interleave_moe_layer_step": 1,
    "use_qk_norm": True,
    "attention_chunk_size": 32,
    "attn_temperature_tuning": True,
    "floor_scale": 16,
    "attn_scale": 0.1,
    "rope_parameters": _LLAMA3_STEP,
    "bos_token_id": _SPECIALS["<|begin_of_text|>"],
    "eos_token_id": [_SPECIALS[name] for name in ("<|end_of_text|>", "<|eom|>", "<|eot|>")],
    "pad_token_id": _SPECIALS["<|finetune_right_pad|>"],
}

VARIANTS: dict[str, dict[str, Any]] = {
    # QK norm, scaled RoPE, experts in every layer, 3 chunked layers and 1 full
    "scout": _SCOUT,
    # 128 experts in every second layer, no QK norm, no scaling
    "maverick": _SCOUT
    | {
        "hidden_size": 32,
        "intermediate_size": 24,
        "num_local_experts": 128,
        "interleave_moe_layer_step": 2,
        "use_qk_norm": False,
        "rope_parameters": _PLAIN_ROPE,
    },
    # the real models' 5 query heads per key-value head
    "group5": _SCOUT | {"num_attention_heads": 10, "head_dim": 8},
    # nothing is a power of two: 5 layers, 3 heads, chunks of 20 tokens, a smooth RoPE ramp
    "odd": _SCOUT
    | {
        "hidden_size": 42,
        "intermediate_size": 27,
        "num_hidden_layers": 5,
        "num_attention_heads": 3,
        "num_key_value_heads": 1,
        "head_dim": 10,
        "num_local_experts": 3,
        "moe_layers": [0, 3, 4],
        "no_rope_layers": [1, 0, 1, 1, 0],
        "attention_chunk_size": 20,
        "rope_parameters": _LLAMA3_STEP | {"factor": 8.0, "high_freq_factor": 4.0},
    },
    # Llama Guard 4: no experts, no full layers, no chunks
    "guard": _SCOUT
    | {
        "num_local_experts": 0,
        "interleave_moe_layer_step": 0,
        "moe_layers": [],
        "no_rope_layer_interval": 8,
        "attention_chunk_size": None,
        "use_qk_norm": False,
        "rope_parameters": _PLAIN_ROPE,
    },
    # lm_head is embed_tokens
    "tied": _SCOUT | {"tie_word_embeddings": True},
}

# Less, and greedy decoding falls into loops; more, and fp32 results no longer agree to 1e-4. Guard,
# with neither chunks nor QK norm, amplifies rounding most.
_MATRIX_STD = {"guard": 0.2}

_VISION: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 128,  # 4 patches of 32 channels after the pixel shuffle
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 56,  # 4 x 4 patches, 4 tokens
    "patch_size": 14,
    "projector_input_dim": 40,
    "projector_output_dim": 40,
    "vision_output_dim": 40,
}

VISIONS: dict[str, dict[str, Any]] = {
    "even": _VISION,
    # three heads of 8, 6 x 6 patches, 9 tokens
    "odd": _VISION
    | {"hidden_size": 24, "intermediate_size": 96, "num_attention_heads": 3, "image_size": 84},
}


def write_checkpoint(
    directory: Path,
    variant: str = "scout",
    *,
    multimodal: bool = False,
    vision: str = "even",
    seed: int = 0,
    max_shard_size: str = "1GB",
    **overrides: object,
) -> Path:
    """Writes config, fp32 weights and a byte tokenizer; returns `directory`.

    `multimodal` writes Llama4ForConditionalGeneration with a vision tower, one of VISIONS, and
    prefixed names, else the text-only Llama4ForCausalLM. `overrides` replace fields of the text
    configuration.
    """
    import torch
    from transformers import (
        Llama4Config,
        Llama4ForCausalLM,
        Llama4ForConditionalGeneration,
        Llama4TextConfig,
    )

    fields = VARIANTS[variant] | overrides
    fields = fields | {"rope_parameters": dict(fields["rope_parameters"])}
    text_config = Llama4TextConfig(**fields)
    if multimodal:
        config = Llama4Config(
            text_config=text_config,
            vision_config=dict(VISIONS[vision]),
            boi_token_index=_SPECIALS["<|image_start|>"],
            eoi_token_index=_SPECIALS["<|image_end|>"],
            image_token_index=_SPECIALS["<|patch|>"],
            tie_word_embeddings=text_config.tie_word_embeddings,
        )
        model = Llama4ForConditionalGeneration(config)
    else:
        model = Llama4ForCausalLM(text_config)
    generator = torch.Generator().manual_seed(seed)
    # tied embeddings of 1 would predict themselves
    word_std = 0.0 if text_config.tie_word_embeddings else 1.0
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.startswith(("vision_model.", "multi_modal_projector.")):
                mean, std = _vision_spread(name, parameter.shape)
            elif parameter.dim() == 1:
                mean, std = 1.0, 0.2
            else:
                large = word_std if "embed_tokens" in name else 0.0
                mean, std = 0.0, large or _MATRIX_STD.get(variant, 0.22)
            parameter.normal_(mean, std, generator=generator)
    model.generation_config.update(
        bos_token_id=fields["bos_token_id"], eos_token_id=fields["eos_token_id"]
    )
    model.save_pretrained(directory, max_shard_size=max_shard_size)
    write_byte_tokenizer(directory)
    return directory


def _vision_spread(name: str, shape: Sequence[int]) -> tuple[float, float]:
    """Mean and deviation under which everything matters: image rows are as large as words."""
    if name.endswith(".bias"):
        return 0.0, 0.3
    if name.endswith("_embedding") or "positional_embedding" in name:
        return 0.0, 1.0
    if len(shape) == 1:
        return 1.0, 0.2
    return 0.0, (1.0 if "projector" in name else 1.5) * shape[-1] ** -0.5


def load_oracle(directory: Path) -> Any:
    """Transformers' text model of a checkpoint: eager attention, fp32, evaluation mode."""
    from transformers import Llama4ForCausalLM, Llama4TextConfig

    config = json.loads((directory / "config.json").read_text())
    text_config = Llama4TextConfig(**config.get("text_config", config))
    if text_config.attention_chunk_size is None:
        # transformers cannot run without a chunk size; one as long as the context is the same
        text_config.attention_chunk_size = text_config.max_position_embeddings
    prefix = {"^language_model.": ""} if "text_config" in config else None
    return Llama4ForCausalLM.from_pretrained(
        directory,
        config=text_config,
        attn_implementation="eager",
        dtype="float32",
        key_mapping=prefix,
    ).eval()


def load_multimodal_oracle(directory: Path) -> Any:
    """Transformers' model with its vision tower, which takes input_ids and pixel_values."""
    from transformers import Llama4Config, Llama4ForConditionalGeneration

    config = Llama4Config.from_pretrained(directory)
    text_config = config.text_config
    if text_config.attention_chunk_size is None:  # as in load_oracle
        text_config.attention_chunk_size = text_config.max_position_embeddings
    return Llama4ForConditionalGeneration.from_pretrained(
        directory, config=config, attn_implementation="eager", dtype="float32"
    ).eval()
