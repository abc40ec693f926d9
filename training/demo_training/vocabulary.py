"""The demo's tokenizer: bytes, the pairs that its texts have most, Llama 4's special tokens."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from caravan.text.tokenizer_model import PATTERN, special_names
from caravan.text.tool_prompt import Tool, explain_tools
from demo_training import mixture

VOCAB_SIZE = 2560
_DIALOGUES = 6_000


def special_tokens() -> list[str]:
    """Llama 4's special tokens in its own order, without those that are reserved for later."""
    return [name for name in special_names() if "reserved" not in name]


def write_tokenizer(directory: Path, random: Random) -> None:
    """Learns pairs from dialogues, and writes tokenizer.json and tokenizer_config.json.

    Digits stay single: sums are learned digit by digit. The file has Llama 4's own pattern, which
    allows three in a row; there is just no pair of them.
    """
    learner = Tokenizer(models.BPE())
    learner.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(PATTERN), "isolated"),
        pre_tokenizers.Digits(individual_digits=True),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ])  # fmt: skip
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE - len(special_tokens()),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    texts = mixture.texts(random, _DIALOGUES)
    texts += [text for text in texts if text[:1] == "{"]  # JSON is rarer than it is important
    learner.train_from_iterator([*texts, *_explanations() * 200], trainer)
    learner.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(PATTERN), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ])  # fmt: skip
    learner.decoder = decoders.ByteLevel()
    content = json.loads(learner.to_str())
    content["added_tokens"] = [
        {
            "id": VOCAB_SIZE - len(special_tokens()) + i,
            "content": name,
            "special": True,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
        }
        for i, name in enumerate(special_tokens())
    ]
    (directory / "tokenizer.json").write_text(json.dumps(content, ensure_ascii=False) + "\n")
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<|begin_of_text|>",
        "eos_token": "<|eot|>",
        "pad_token": "<|finetune_right_pad|>",
        "clean_up_tokenization_spaces": False,
    }
    (directory / "tokenizer_config.json").write_text(json.dumps(config, indent=1) + "\n")


def _explanations() -> list[str]:
    tool = Tool("weather", parameters={"type": "object", "properties": {}, "required": []})
    parts = [
        *explain_tools([tool], parallel_calls=True),
        *explain_tools([tool], parallel_calls=False),
    ]
    return [part for part in parts if isinstance(part, str)]
