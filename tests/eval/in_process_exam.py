"""The exam without a server: prompts go straight into an engine, all at once.

That is for faults, which are put into the engine's own process. Answers are compared as text.
"""

from __future__ import annotations

import io
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pytest
from PIL import Image

from caravan.engine.handle import ShownImage, Submission
from caravan.images.decode import tile_image
from caravan.messages import Sampling
from caravan.model.architecture import Architecture
from caravan.text.prompt import Message, Picture, ToolCall, render_chat
from caravan.text.tokenizer import Tokenizer
from caravan.tiles import TiledImage, TileLayout
from demo_training.dialogue import Turn
from demo_training.encoding import as_tool
from eval.faults import Fault, faulty_copy
from eval.questions import Question
from in_process import complete_all, load, new_engine

_MAX_PIXELS = 1 << 24
_MAX_TOKENS = 100


def accuracy(fault: Fault, model: Path, questions: Sequence[Question]) -> dict[str, float]:
    """Parts of right answers by skill, with a fault at work."""
    questions = [q for q in questions if not q.options]  # no grammars here
    right: dict[str, list[bool]] = {}
    for question, text in zip(questions, answers(fault, model, questions), strict=True):
        right.setdefault(question.skill, []).append(text == question.expected.text)
    return {skill: sum(found) / len(found) for skill, found in right.items()}


def answers(fault: Fault, model: Path, questions: Sequence[Question]) -> list[str]:
    """What the model writes to each question."""
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        directory = faulty_copy(fault, model, Path(folder) / "model")
        fault.patch(patch)
        architecture = Architecture.from_directory(directory)
        assert architecture.vision is not None
        tokenizer = Tokenizer.from_directory(directory, architecture.vocab_size)
        layout = architecture.vision.tile_layout()
        submissions = [submission(q, tokenizer, layout, fault) for q in questions]
        engine = new_engine(load(directory, block_size=16))
        completions = complete_all(engine, submissions)
    return [tokenizer.decode(completion.tokens) for completion in completions]


def submission(
    question: Question, tokenizer: Tokenizer, layout: TileLayout, fault: Fault
) -> Submission:
    """A question as the API process would hand it over."""
    images: list[TiledImage] = []
    messages = [_message(turn, layout, images) for turn in question.dialogue.turns]
    tools = [as_tool(definition) for definition in question.dialogue.tools]
    prompt = render_chat(tokenizer, messages, tools=tools)
    wrong = [TiledImage(i.key, i.grid, tuple(fault.tiles(i))) for i in images]
    sampling = Sampling(max_tokens=_MAX_TOKENS, temperature=0.0, stop_token_ids=tokenizer.stop_ids)
    shown = [ShownImage(*pair) for pair in zip(wrong, prompt.tile_starts, strict=True)]
    return Submission(prompt.tokens, sampling, shown)


def _message(turn: Turn, layout: TileLayout, images: list[TiledImage]) -> Message:
    parts: list[str | Picture] = []
    for part in turn.parts:
        if isinstance(part, Image.Image):
            tiled = tile_image(_png(part), layout, layout.max_tiles, _MAX_PIXELS)
            images.append(tiled)
            parts.append(Picture(tiled.grid, layout.tile_tokens))
        else:
            parts.append(part)
    calls = tuple(ToolCall(call.name, json.dumps(call.arguments)) for call in turn.calls)
    return Message(turn.role, tuple(parts), calls)


def _png(picture: Image.Image) -> bytes:
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()
