"""The demo model's configuration: Llama 4 in every respect but size."""

from __future__ import annotations

from typing import Any

from caravan.text.tokenizer import Tokenizer
from demo_training.vocabulary import VOCAB_SIZE

CHUNK = 256
MAX_TILES = 4

TEXT: dict[str, Any] = {
    "model_type": "llama4_text",
    "dtype": "bfloat16",
    "vocab_size": VOCAB_SIZE,
    "hidden_size": 160,
    "intermediate_size": 128,
    "intermediate_size_mlp": 384,
    "num_hidden_layers": 8,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 64,
    "max_position_embeddings": 8192,
    "num_local_experts": 4,
    "num_experts_per_tok": 1,
    "interleave_moe_layer_step": 2,
    "no_rope_layers": [1, 1, 1, 0, 1, 1, 1, 0],
    "attention_chunk_size": CHUNK,
    "floor_scale": CHUNK,
    "attn_scale": 0.25,
    "attn_temperature_tuning": True,
    "use_qk_norm": True,
    "rms_norm_eps": 1e-5,
    "rope_theta": 500.0,
    "rope_scaling": {
        "rope_type": "llama3",
        "factor": 16.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 1.0,
        "original_max_position_embeddings": CHUNK,
    },
    "tie_word_embeddings": False,
    "hidden_act": "silu",
}

VISION: dict[str, Any] = {
    "model_type": "llama4_vision_model",
    "hidden_size": 96,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "intermediate_size": 384,
    "image_size": 64,
    "patch_size": 8,
    "pixel_shuffle_ratio": 0.5,
    "projector_input_dim": 192,
    "projector_output_dim": 192,
    "vision_output_dim": 192,
    "num_channels": 3,
    "hidden_act": "gelu",
    "rope_theta": 10000.0,
}


def config(tokenizer: Tokenizer) -> dict[str, Any]:
    """config.json; the ids are the tokenizer's."""
    generation = generation_config(tokenizer)
    ids = {key: generation[key] for key in ("bos_token_id", "eos_token_id", "pad_token_id")}
    return {
        "architectures": ["Llama4ForConditionalGeneration"],
        "model_type": "llama4",
        "dtype": "bfloat16",
        **ids,
        "boi_token_index": tokenizer.special_id("<|image_start|>"),
        "eoi_token_index": tokenizer.special_id("<|image_end|>"),
        "image_token_index": tokenizer.special_id("<|patch|>"),
        "tie_word_embeddings": False,
        "text_config": TEXT | ids,
        "vision_config": VISION,
    }


def generation_config(tokenizer: Tokenizer) -> dict[str, Any]:
    """generation_config.json: greedy, since every question has one right answer."""
    ends = ("<|end_of_text|>", "<|eom|>", "<|eot|>")
    return {
        "bos_token_id": tokenizer.bos_id,
        "eos_token_id": [tokenizer.special_id(name) for name in ends],
        "pad_token_id": tokenizer.special_id("<|finetune_right_pad|>"),
        "do_sample": False,
    }


def preprocessor_config() -> dict[str, Any]:
    """preprocessor_config.json: how pictures become tiles."""
    return {
        "image_processor_type": "Llama4ImageProcessor",
        "processor_class": "Llama4Processor",
        "size": {"height": VISION["image_size"], "width": VISION["image_size"]},
        "max_patches": MAX_TILES,
        "resize_to_max_canvas": False,
        "do_resize": True,
        "do_rescale": True,
        "do_normalize": True,
        "rescale_factor": 1 / 255,
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
    }
