"""The tokens of prompts with pictures are those of Meta's ChatFormat."""

from __future__ import annotations

import importlib
import random
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from llama_models.datatypes import RawMediaItem, RawMessage, RawTextItem
from llama_models.llama4.tokenizer import Tokenizer as Meta

from caravan.images.decode import tile_image
from caravan.text.prompt import Message, Picture, Prompt, Role, render_chat
from caravan.text.tokenizer import Tokenizer
from caravan.text.vocabulary import PATCH
from caravan.tiles import TileGrid, TileLayout
from meta_images import TILE, chat_format, meta_image_tokens, meta_sizes, modules, photographs

LAYOUT = TileLayout()
GRIDS = [TileGrid(rows, columns) for rows in range(1, 17) for columns in range(1, 16 // rows + 1)]


@cache
def meta_tokenizer() -> Meta:
    return Meta.get_instance()


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    (folder,) = importlib.import_module("llama_models.llama4").__path__
    return Tokenizer.from_directory(Path(folder))


def shown(tokenizer: Tokenizer, grid: TileGrid) -> Prompt:
    prompt = Prompt([])
    prompt.show(tokenizer, Picture(grid, LAYOUT.tile_tokens))
    return prompt


def meta_tokens(grid: TileGrid) -> list[int]:
    """Of tiles without pixels."""
    tiles = torch.empty(grid.num_tiles, 3, TILE, TILE, device="meta")
    image = modules()[1].TransformedImage(tiles, (grid.rows, grid.columns))
    tokens: list[int] = chat_format(meta_tokenizer())._encode_image(image)
    return tokens


@pytest.mark.parametrize("grid", GRIDS, ids=lambda grid: f"{grid.rows}x{grid.columns}")
def test_every_canvas(tokenizer: Tokenizer, grid: TileGrid) -> None:
    prompt = shown(tokenizer, grid)
    assert prompt.tokens == meta_tokens(grid)
    n = grid.rows * grid.columns
    assert prompt.image_tokens == len(prompt.tokens) == (147 if n == 1 else 145 * n + 147)
    patches = [i for i, token in enumerate(prompt.tokens) if token == tokenizer.special_id(PATCH)]
    (starts,) = prompt.tile_starts
    assert patches == [start + i for start in starts for i in range(144)]


def test_hundreds_of_sizes(tokenizer: Tokenizer) -> None:
    source = random.Random(0)
    edges = [1, 335, 336, 337, 671, 672, 673, 5000]
    sizes = [(width, height) for width in edges for height in edges]
    sizes += [(source.randint(1, 3000), source.randint(1, 3000)) for _ in range(300)]
    for width, height in sizes:
        (rows, columns), _ = meta_sizes(width, height)
        ours = shown(tokenizer, LAYOUT.grid(width, height))
        assert ours.tokens == meta_tokens(TileGrid(rows, columns)), (width, height)


@pytest.mark.parametrize("path", photographs(), ids=lambda path: path.name)
@pytest.mark.parametrize("max_tiles", [1, 16])
def test_photographs(tokenizer: Tokenizer, path: Path, max_tiles: int) -> None:
    data = path.read_bytes()
    image = tile_image(data, LAYOUT, max_tiles, 10**8)
    expected = meta_image_tokens(data, meta_tokenizer(), max_tiles)
    assert shown(tokenizer, image.grid).tokens == expected


def test_a_conversation(tokenizer: Tokenizer) -> None:
    """Pictures between texts, several in a message, and over several turns."""
    dog, pasta = (path.read_bytes() for path in photographs())
    low_word = "Compare <|image|> them"  # text does not become a placeholder
    turns: list[tuple[Role, list[str | bytes]]] = [
        ("system", ["You see."]),
        ("user", [dog, "and", pasta, low_word]),
        ("assistant", ["One is a dog."]),
        ("user", ["And", dog]),
    ]

    def meta_part(part: str | bytes) -> Any:
        return RawTextItem(text=part) if isinstance(part, str) else RawMediaItem(data=part)

    def our_part(part: str | bytes) -> str | Picture:
        if isinstance(part, str):
            return part
        return Picture(tile_image(part, LAYOUT, 16, 10**8).grid, LAYOUT.tile_tokens)

    theirs = chat_format(meta_tokenizer()).encode_dialog_prompt(
        [RawMessage(role=role, content=list(map(meta_part, parts))) for role, parts in turns]
    )
    messages = [Message(role, tuple(map(our_part, parts))) for role, parts in turns]
    ours = render_chat(tokenizer, messages)
    assert ours.tokens == theirs.tokens
    assert [len(starts) for starts in ours.tile_starts] == [len(tiles) for tiles in theirs.images]
