"""Greedy tokens and log-probabilities of prompts with pictures equal `transformers`.

Pictures go the whole way but HTTP: files, tiles, prompt, scheduler, encoder, decoder. The oracle
gets the same token ids and all tiles at once, and reads each whole sequence without a cache.
"""

from __future__ import annotations

import functools
import io
import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
from PIL import Image

from caravan.config import CacheConfig, Dtype, EngineConfig, ModelConfig
from caravan.engine.handle import ShownImage, Submission
from caravan.images.decode import tile_image
from caravan.messages import Sampling
from caravan.model.architecture import Architecture
from caravan.text.prompt import Message, Picture, Role, render_chat
from caravan.text.tokenizer import Tokenizer
from caravan.text.vocabulary import PATCH
from caravan.tiles import TiledImage
from caravan.worker.runner import Runner
from in_process import Completion, complete_all, load, new_engine
from tiny_llama4 import load_multimodal_oracle

VARIANTS = {
    "scout": ("scout", "even"),
    "maverick": ("maverick", "odd"),
    "odd": ("odd", "odd"),
    "guard": ("guard", "even"),
}
NEW_TOKENS = 40
SMALL, LARGE, WIDE = (40, 30), (150, 120), (300, 50)  # pixels; tiles have 56 or 84

Part = str | tuple[int, int]  # a text, or the size of a picture
Conversation = list[tuple[Role, list[Part]]]  # roles, and what they say

CONVERSATIONS: dict[str, Conversation] = {
    "one tile": [("user", ["What is this?", SMALL])],
    "many tiles": [("user", [LARGE, "Describe it."])],
    "several pictures": [("user", [SMALL, LARGE, WIDE, "How do they differ?", (56, 56)])],
    "several turns": [
        ("system", ["You see."]),
        ("user", ["First:", LARGE]),
        ("assistant", ["A llama."]),
        ("user", [SMALL, "and", WIDE, "?"]),
    ],
    "no picture": [("user", ["Hello there. " * 4])],
    # the picture begins at every place in a chunk of 32 or 20 tokens
    **{f"after {n} letters": [("user", ["x" * n, LARGE])] for n in range(0, 32, 7)},
}


@pytest.fixture(params=VARIANTS)
def directory(request: pytest.FixtureRequest, tiny_checkpoint: Callable[..., Path]) -> Path:
    name, vision = VARIANTS[request.param]
    return tiny_checkpoint(name, multimodal=True, vision=vision)


@functools.cache
def oracle(directory: Path) -> Any:
    return load_multimodal_oracle(directory)


@functools.cache
def runner(directory: Path) -> Runner:
    return load(directory)


@functools.cache
def tokenizer(directory: Path) -> Tokenizer:
    return Tokenizer.from_directory(directory)


def picture_file(size: tuple[int, int]) -> bytes:
    """A PNG in which no two places look alike."""
    source = random.Random(repr(size))
    coarse = Image.frombytes("RGB", (7, 5), source.randbytes(7 * 5 * 3))
    file = io.BytesIO()
    coarse.resize(size, Image.Resampling.BICUBIC).save(file, "PNG")
    return file.getvalue()


@functools.cache
def submission(directory: Path, name: str) -> Submission:
    """The prompt with its pictures; the answer has no patch, where the oracle would want a tile."""
    vision = Architecture.from_directory(directory).vision
    assert vision is not None
    layout = vision.tile_layout()
    images: list[TiledImage] = []

    def shown(parts: Sequence[Part]) -> Iterator[str | Picture]:
        for part in parts:
            if isinstance(part, str):
                yield part
            else:
                image = tile_image(picture_file(part), layout, layout.max_tiles, 10**6)
                images.append(image)
                yield Picture(image.grid, layout.tile_tokens)

    words = tokenizer(directory)
    messages = [Message(role, tuple(shown(parts))) for role, parts in CONVERSATIONS[name]]
    prompt = render_chat(words, messages)
    sampling = Sampling(
        max_tokens=NEW_TOKENS,
        temperature=0.0,
        logprobs=5,
        logit_bias=((words.special_id(PATCH), -1e9),),
    )
    return Submission(prompt.tokens, sampling, list(map(ShownImage, images, prompt.tile_starts)))


@functools.cache
def expected_logprobs(directory: Path, name: str, new: tuple[int, ...]) -> torch.Tensor:
    """Of each new token's position. In every batch the tokens are the same: asked once."""
    asked = submission(directory, name)
    logits = expected_logits(directory, [*asked.prompt, *new], asked.images)
    return logits[len(asked.prompt) - 1 : -1].log_softmax(-1)


@torch.inference_mode()
def expected_logits(directory: Path, ids: list[int], images: Sequence[ShownImage]) -> torch.Tensor:
    """Of every position of a sequence."""
    tiles = [tile for image, _ in images for tile in image.tiles]
    arguments: dict[str, torch.Tensor] = {}
    if tiles:
        size = int((len(tiles[0]) // 3) ** 0.5)
        pixels = torch.frombuffer(bytearray(b"".join(tiles)), dtype=torch.uint8)
        pixels = pixels.view(-1, size, size, 3).permute(0, 3, 1, 2)
        arguments["pixel_values"] = (pixels.float() / 255 - 0.5) / 0.5
    answer = oracle(directory)(input_ids=torch.tensor([ids]), use_cache=False, **arguments)
    logits: torch.Tensor = answer.logits[0].double()
    return logits


def assert_greedy(directory: Path, name: str, completion: Completion) -> None:
    new = completion.tokens
    assert completion.finish == "length"
    assert len(new) == NEW_TOKENS
    logprobs = expected_logprobs(directory, name, tuple(new)).clone()
    ours = torch.tensor([entry.logprob for entry in completion.logprobs], dtype=torch.float64)
    theirs = logprobs.gather(1, torch.tensor(new)[:, None])[:, 0]
    torch.testing.assert_close(ours, theirs, atol=2e-4, rtol=1e-4)
    top = torch.tensor([[p for _, p in entry.top] for entry in completion.logprobs]).double()
    torch.testing.assert_close(top, logprobs.topk(5).values, atol=2e-4, rtol=1e-4)
    logprobs[:, tokenizer(directory).special_id(PATCH)] = -torch.inf
    assert logprobs.argmax(-1).tolist() == new


@pytest.mark.parametrize("name", CONVERSATIONS)
def test_alone(directory: Path, name: str) -> None:
    asked = submission(directory, name)
    assert_greedy(directory, name, complete_all(new_engine(runner(directory)), [asked])[0])


@pytest.mark.parametrize(("budget", "tile_budget"), [(2048, 16), (19, 16), (7, 2), (100, 1)])
def test_together_with_text(directory: Path, budget: int, tile_budget: int) -> None:
    """Cut anywhere, in the middle of tiles too, beside prompts without pictures."""
    engine = new_engine(runner(directory), budget=budget, tile_budget=tile_budget)
    asked = [submission(directory, name) for name in CONVERSATIONS]
    for name, completion in zip(CONVERSATIONS, complete_all(engine, asked), strict=True):
        assert_greedy(directory, name, completion)


@pytest.mark.parametrize("num_tiles", [1, 3])
def test_few_slots_and_preemptions(directory: Path, num_tiles: int) -> None:
    """Tiles are encoded again when their slots were needed, and when a request starts over."""
    vision = Architecture.from_directory(directory).vision
    assert vision is not None
    hidden = Architecture.from_directory(directory).hidden_size
    tile_bytes = vision.tile_layout().tile_tokens * hidden * 4
    small = load(directory, image_cache_bytes=num_tiles * tile_bytes)
    assert small.tile_slots is not None
    assert small.tile_slots.num_slots == num_tiles
    asked = [submission(directory, name) for name in CONVERSATIONS]
    longest = max(len(each.prompt) for each in asked) + NEW_TOKENS
    num_pages = int(1.3 * small.layout.pages_needed(longest))
    engine = new_engine(small, num_pages=num_pages, budget=50)
    completions = complete_all(engine, asked)
    assert engine.stats.preemptions > 0
    tiles = sum(len(image.tiles) for each in asked for image, _ in each.images)
    assert engine.stats.encoded_tiles > tiles / 2
    for name, completion in zip(CONVERSATIONS, completions, strict=True):
        assert_greedy(directory, name, completion)


def test_a_picture_is_encoded_once_for_all_turns(directory: Path) -> None:
    engine = new_engine(runner(directory))
    name = "several turns"
    asked = submission(directory, name)
    complete_all(engine, [asked])
    encoded = engine.stats.encoded_tiles
    assert encoded == sum(len(image.tiles) for image, _ in asked.images)
    assert_greedy(directory, name, complete_all(engine, [asked])[0])
    assert engine.stats.encoded_tiles == encoded
    assert engine.stats.reused_tiles == encoded


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_low_precision_stays_close(directory: Path, dtype: Dtype) -> None:
    config = EngineConfig(
        model=ModelConfig(dtype=dtype, device="cpu"),
        cache=CacheConfig(kv_cache_memory_bytes=8 << 20, image_cache_memory_bytes=1 << 20),
    )
    low = Runner(config, directory, lambda progress: None)
    asked = submission(directory, "several turns")
    first = msgspec.structs.replace(asked.sampling, max_tokens=1)
    asked = asked._replace(sampling=first)
    exact = complete_all(new_engine(runner(directory)), [asked])[0].logprobs[0].top
    found = dict(complete_all(new_engine(low), [asked])[0].logprobs[0].top)
    token, logprob = exact[0]
    assert found[token] == pytest.approx(logprob, abs=0.35)


def test_what_is_shown_matters(directory: Path) -> None:
    """Else the comparisons above would compare words only."""
    asked = submission(directory, "many tiles")
    (shown,) = asked.images
    turned = shown.image.tiles[::-1]
    logits = expected_logits(directory, asked.prompt, asked.images)
    other = TiledImage(b"turned", shown.image.grid, turned)
    changed = expected_logits(directory, asked.prompt, [ShownImage(other, shown.tile_starts)])
    assert (logits[-1] - changed[-1]).abs().max() > 0.1
