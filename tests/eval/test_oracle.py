"""transformers gives the same answers as Caravan, from the same files."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from transformers import Llama4ForConditionalGeneration

from caravan.engine.handle import Submission
from caravan.model.architecture import Architecture
from caravan.model.source import DEMO
from caravan.text.tokenizer import Tokenizer
from eval.faults import FAULTS
from eval.in_process_exam import answers, submission
from eval.questions import Question, paper

SOUND = FAULTS[0]


@pytest.fixture(scope="module")
def architecture() -> Architecture:
    return Architecture.from_directory(DEMO)


@pytest.fixture(scope="module")
def tokenizer(architecture: Architecture) -> Tokenizer:
    return Tokenizer.from_directory(DEMO, architecture.vocab_size)


@pytest.fixture(scope="module")
def questions() -> Sequence[Question]:
    """One of each skill, without those that need a grammar."""
    return [question for question in paper(1) if not question.options]


def test_the_answers_are_those_of_transformers(
    architecture: Architecture, tokenizer: Tokenizer, questions: Sequence[Question]
) -> None:
    assert architecture.vision is not None
    layout = architecture.vision.tile_layout()
    oracle = Llama4ForConditionalGeneration.from_pretrained(DEMO, dtype=torch.float32)
    ours = answers(SOUND, DEMO, questions)
    for question, text in zip(questions, ours, strict=True):
        asked = submission(question, tokenizer, layout, SOUND)
        assert oracle_answer(oracle, tokenizer, asked) == text, question.skill


def oracle_answer(
    oracle: Llama4ForConditionalGeneration, tokenizer: Tokenizer, asked: Submission
) -> str:
    pictures = {}
    if tiles := [tile for image in asked.images for tile in image.image.tiles]:
        size = round((len(tiles[0]) // 3) ** 0.5)
        pixels = np.stack([np.frombuffer(t, np.uint8).reshape(size, size, 3) for t in tiles])
        scaled = (torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255 - 0.5) / 0.5
        pictures["pixel_values"] = scaled
    prompt = torch.tensor([asked.prompt])
    with torch.inference_mode():
        out = oracle.generate(
            prompt, **pictures, max_new_tokens=asked.sampling.max_tokens, do_sample=False
        )
    return tokenizer.decode(out[0, prompt.shape[1] :].tolist())
