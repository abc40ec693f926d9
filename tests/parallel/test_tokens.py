"""Two and four ranks give the tokens of one: texts, pictures, all sampling, any schedule."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from caravan.config import SchedulerConfig
from caravan.engine.constraints import Constraints
from caravan.engine.engine import Engine
from caravan.engine.handle import ShownImage, Submission
from caravan.engine.vocabulary import load_compiler
from caravan.grammars import constraints as grammars
from caravan.messages import Generate, Sampling, TokenLogprobs
from caravan.model.architecture import Architecture
from caravan.scheduling.scheduler import Scheduler
from caravan.text.prompt import Message, Picture, render_chat
from caravan.text.tokenizer import Tokenizer
from caravan.tiles import TiledImage
from caravan.worker.runner import Runner
from in_process import Completion, complete_all, load, new_engine
from parallel.split import split

SPLITTABLE = {"vocab_size": 280, "num_key_value_heads": 4}  # over four ranks
CASES = [("scout", 2), ("scout", 4), ("maverick", 2), ("maverick", 4)]
NEW_TOKENS = 40  # past a chunk of 32, wherever it begins

SAMPLINGS = {
    "greedy": Sampling(max_tokens=NEW_TOKENS, temperature=0.0),
    "warm": Sampling(max_tokens=NEW_TOKENS, temperature=0.9, seed=1),
    "top_p": Sampling(max_tokens=NEW_TOKENS, temperature=1.2, seed=2, top_p=0.8),
    "top_k": Sampling(max_tokens=NEW_TOKENS, temperature=1.2, seed=3, top_k=7),
    "min_p": Sampling(max_tokens=NEW_TOKENS, temperature=1.2, seed=4, min_p=0.05),
    "all filters": Sampling(
        max_tokens=NEW_TOKENS, temperature=1.0, seed=-5, top_p=0.95, top_k=50, min_p=0.01
    ),
    "penalties": Sampling(
        max_tokens=NEW_TOKENS,
        temperature=0.0,
        repetition_penalty=1.3,
        frequency_penalty=0.4,
        presence_penalty=0.2,
    ),
    "bias": Sampling(
        max_tokens=NEW_TOKENS, temperature=0.0, logit_bias=((7, 3.0), (250, 4.0), (33, -100.0))
    ),
    "min_tokens": Sampling(
        max_tokens=NEW_TOKENS,
        temperature=0.8,
        seed=6,
        min_tokens=9,
        stop_token_ids=tuple(range(100)),
    ),
    "logprobs": Sampling(max_tokens=NEW_TOKENS, temperature=0.7, seed=7, logprobs=5),
    "prompt": Sampling(max_tokens=3, temperature=0.0, logprobs=0, prompt_logprobs=4),
    "many logprobs": Sampling(max_tokens=3, temperature=0.0, logprobs=280),
}


@dataclass(frozen=True, slots=True)
class Pair:
    """One model, whole and split."""

    directory: Path
    alone: Runner
    together: Runner


@pytest.fixture(scope="module", params=CASES, ids=lambda case: f"{case[0]} on {case[1]}")
def pair(request: pytest.FixtureRequest, tiny_checkpoint: Callable[..., Path]) -> Iterator[Pair]:
    variant, size = request.param
    directory = tiny_checkpoint(variant, multimodal=True, **SPLITTABLE)
    with split(directory, size) as together:
        yield Pair(directory, load(directory), together)


@functools.cache
def texts() -> list[Submission]:
    """Each sampling on prompts that end before, at and behind the ends of chunks."""
    lengths = [1, 5, 31, 32, 33, 47, 64, 70, 95, 100, 129, 150]
    return [
        Submission([(7 * i + length) % 256 for i in range(length)], sampling)
        for length, sampling in zip(lengths, SAMPLINGS.values(), strict=True)
    ]


def pictures(directory: Path) -> list[Submission]:
    """Prompts with one tile, with more than there are ranks, and with fewer."""
    vision = Architecture.from_directory(directory).vision
    assert vision is not None
    layout, tokenizer = vision.tile_layout(), Tokenizer.from_directory(directory, 280)
    found = []
    for number, (rows, columns) in enumerate([(1, 1), (1, 2), (2, 2), (2, 3)]):
        grid = layout.grid(columns * layout.tile_size, rows * layout.tile_size)
        assert (grid.rows, grid.columns) == (rows, columns)
        pixels = [
            bytes((i * i + 31 * number + tile) % 251 for i in range(3 * layout.tile_size**2))
            for tile in range(grid.num_tiles + (grid.num_tiles > 1))
        ]
        image = TiledImage(bytes([number]) * 32, grid, tuple(pixels))
        message = Message("user", ("What is", Picture(grid, layout.tile_tokens), "this?"))
        prompt = render_chat(tokenizer, [message])
        shown = [ShownImage(image, prompt.tile_starts[0])]
        found.append(Submission(prompt.tokens, SAMPLINGS["greedy"], shown))
    return found


def assert_same(found: list[Completion], expected: list[Completion]) -> None:
    for one, other in zip(found, expected, strict=True):
        assert one.tokens == other.tokens
        assert_close(one.logprobs, other.logprobs)
        assert_close(one.prompt_logprobs, other.prompt_logprobs)


def assert_close(found: list[TokenLogprobs], expected: list[TokenLogprobs]) -> None:
    for one, other in zip(found, expected, strict=True):
        assert one.logprob == pytest.approx(other.logprob, abs=1e-4)
        assert [value for _, value in one.top] == pytest.approx(
            [value for _, value in other.top], abs=1e-4
        )
        assert len({token for token, _ in one.top}) == len(one.top)


@pytest.mark.parametrize(
    "limits",
    [{}, {"budget": 11}, {"num_pages": 120}, {"max_num_seqs": 1}],
    ids=["all at once", "prompts in pieces", "preempted", "one by one"],
)
def test_every_sampling_option(pair: Pair, limits: dict[str, int]) -> None:
    expected = complete_all(new_engine(pair.alone), texts())
    engine = new_engine(pair.together, **limits)  # type: ignore[arg-type]  # none is `ahead`
    assert_same(complete_all(engine, texts()), expected)
    assert ("num_pages" in limits) == bool(engine.stats.preemptions)


@pytest.mark.parametrize("limits", [{}, {"budget": 9, "tile_budget": 1}])
def test_pictures(pair: Pair, limits: dict[str, int]) -> None:
    asked = pictures(pair.directory)
    expected = complete_all(new_engine(pair.alone), asked)
    engine = new_engine(pair.together, **limits)  # type: ignore[arg-type]  # none is `ahead`
    assert_same(complete_all(engine, asked), expected)


@pytest.mark.parametrize("ahead", [False, True])
def test_grammars(pair: Pair, ahead: bool) -> None:
    grammar = grammars.regex("[0-9]{3}(-[0-9]{3}){5}")
    found = []
    for runner in (pair.alone, pair.together):
        constraints = Constraints(load_compiler(pair.directory, 280), 280)
        limits = SchedulerConfig(max_num_batched_tokens=64)
        scheduler = Scheduler(runner.layout, runner.num_pages, limits, runner.tile_slots)
        engine = Engine(runner, scheduler, constraints, async_scheduling=ahead)
        for rid in range(5):  # unlike those of other tests
            sampling = Sampling(max_tokens=30, seed=rid, temperature=1.5)
            held = grammar if rid % 2 else None
            engine.add(Generate(10**7 + 10 * ahead + rid, list(b"Code: "), sampling, grammar=held))
        tokens: dict[int, list[int]] = {}
        while engine.has_work or engine.compiling:
            output = engine.step()
            for delta in output.deltas if output else []:
                tokens.setdefault(delta.rid, []).extend(delta.tokens)
        found.append(tokens)
    assert found[0] == found[1]
