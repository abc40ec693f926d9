"""Canvases and sizes, against Meta's code."""

from __future__ import annotations

import random
import sys

import pytest
from PIL import ImageFile

from caravan.tiles import TileGrid, TileLayout
from meta_images import TILE, meta_sizes, modules

RANDOM = random.Random(4)

EDGES = [1, 2, 335, 336, 337, 671, 672, 673, 1007, 1008, 1009, 1344, 1345, 5375, 5376, 5377]
SIZES = [
    *((width, height) for width in EDGES for height in EDGES),
    *[(1, 5000), (5000, 1), (40_000, 1000), (1000, 40_000), (1, 40_000_000), (65_535, 1)],
    *[(480, 640), (640, 480), (1080, 1920), (1920, 1080), (1024, 1024), (6300, 6300)],
    *((RANDOM.randint(1, 6000), RANDOM.randint(1, 6000)) for _ in range(400)),
    *((RANDOM.randint(1, 700), RANDOM.randint(1, 700)) for _ in range(200)),
    *((int(10 ** RANDOM.uniform(0, 4.5)), int(10 ** RANDOM.uniform(0, 4.5))) for _ in range(400)),
]


@pytest.mark.parametrize("max_tiles", [1, 2, 4, 7, 16])
def test_the_canvas_and_the_size_on_it_are_metas(max_tiles: int) -> None:
    layout = TileLayout()
    for width, height in SIZES:
        grid = layout.grid(width, height, max_tiles)
        found = (grid.rows, grid.columns), layout.resized(width, height, grid)
        assert found == meta_sizes(width, height, max_tiles), (width, height)


def test_the_layout_has_the_most_tiles_unless_told() -> None:
    layout = TileLayout(max_tiles=4)
    for width, height in SIZES[::7]:
        assert layout.grid(width, height) == TileLayout().grid(width, height, 4)


def test_there_are_fifty_canvases() -> None:
    layout = TileLayout()
    grids = {
        layout.grid(columns * TILE, rows * TILE)
        for rows in range(1, 17)
        for columns in range(1, 17)
    }
    transform = modules()[0].VariableSizeImageTransform(TILE)
    theirs = {
        TileGrid(height // TILE, width // TILE)
        for height, width in transform.find_supported_resolutions(16, TILE)
    }
    assert grids == theirs
    assert len(grids) == 50


@pytest.mark.parametrize(
    ("rows", "columns", "tiles"), [(1, 1, 1), (1, 2, 3), (2, 2, 5), (4, 4, 17), (16, 1, 17)]
)
def test_more_than_one_tile_have_a_global_tile(rows: int, columns: int, tiles: int) -> None:
    assert TileGrid(rows, columns).num_tiles == tiles


def test_metas_code_leaves_nothing_behind() -> None:
    modules()
    assert ImageFile.LOAD_TRUNCATED_IMAGES is False
    assert not [name for name in sys.modules if name.split(".")[0] == "torchvision"]
    assert "llama_models.llama4.preprocess" not in sys.modules
