"""How a picture becomes tiles, and tiles become tokens: arithmetic only.

A picture is resized onto a *canvas* of rows x columns tiles, each of which gives `tile_tokens`
patches. If there is more than one tile, the whole picture squeezed into one, the *global tile*,
comes after them. Sources: llama-models, llama4/preprocess.py and llama4/chat_format.py.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from functools import lru_cache


@dataclass(frozen=True, slots=True)
class TileGrid:
    """The canvas of one picture, in tiles."""

    rows: int
    columns: int

    @property
    def num_tiles(self) -> int:
        """Tiles to encode, the global one included."""
        count = self.rows * self.columns
        return count if count == 1 else count + 1


@dataclass(frozen=True, slots=True)
class TiledImage:
    """A picture as the engine gets it."""

    key: bytes  # 32 bytes; equal keys mean equal tiles
    grid: TileGrid
    tiles: tuple[
        bytes, ...
    ]  # each uint8 [tile_size, tile_size, 3], row by row, the global one last


@dataclass(frozen=True, slots=True)
class TileSlots:
    """Room for encoded tiles in the engine: how many, and the tokens of each."""

    num_slots: int
    tile_tokens: int


@dataclass(frozen=True, kw_only=True, slots=True)
class TileLayout:
    """The tiles of one model."""

    tile_size: int = 336  # pixels, of a side
    tile_tokens: int = 144  # patches of a tile, after the pixel shuffle
    max_tiles: int = 16  # of a canvas

    def grid(self, width: int, height: int, max_tiles: int | None = None) -> TileGrid:
        """The canvas for a picture of `width` x `height` pixels, of at most `max_tiles` tiles.

        That which needs the least enlargement; if the picture fits none, the least reduction; of
        those that are equal, the smallest. Scales are compared in fp32, as the references do.

        >>> TileLayout().grid(1920, 1080)
        TileGrid(rows=3, columns=5)
        """
        best: tuple[bool, float, int] | None = None
        chosen = TileGrid(1, 1)
        for grid in _grids(max_tiles or self.max_tiles):
            scale = min(
                _fp32(grid.columns * self.tile_size / width),
                _fp32(grid.rows * self.tile_size / height),
            )
            enlarges = scale >= 1
            rank = (not enlarges, scale if enlarges else -scale, grid.rows * grid.columns)
            if best is None or rank < best:
                best, chosen = rank, grid
        return chosen

    def resized(self, width: int, height: int, grid: TileGrid) -> tuple[int, int]:
        """Width and height in pixels of the picture on its canvas: undistorted, the rest is padded.

        It grows until one of its sides has the length of a tile, never further.

        >>> TileLayout().resized(100, 50, TileGrid(1, 1))
        (336, 168)
        """
        size = self.tile_size
        target_width = min(max(width, size), grid.columns * size)
        target_height = min(max(height, size), grid.rows * size)
        scale_w, scale_h = target_width / width, target_height / height
        if scale_w < scale_h:
            target_height = min(math.floor(height * scale_w), target_height)
        else:
            target_width = min(math.floor(width * scale_h), target_width)
        return max(target_width, 1), max(target_height, 1)


@lru_cache
def _grids(max_tiles: int) -> tuple[TileGrid, ...]:
    """Every canvas of at most `max_tiles` tiles: 50 of 16."""
    return tuple(
        TileGrid(rows, columns)
        for rows in range(1, max_tiles + 1)
        for columns in range(1, max_tiles // rows + 1)
    )


def _fp32(value: float) -> float:
    """The nearest number of single precision."""
    rounded: float = struct.unpack("f", struct.pack("f", value))[0]
    return rounded
