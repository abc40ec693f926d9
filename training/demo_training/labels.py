"""What each token of a tile shows: the encoder learns to see before the decoder asks.

A tile of 64 x 64 pixels has 4 x 4 tokens; each gets the shape or digit that fills most of its
square, if any. The labels are made from the scene, by the same cuts as the tiles.
"""

from __future__ import annotations

import io
from random import Random

import numpy as np
from PIL import Image

from caravan.images.decode import tile_image
from caravan.tiles import TileLayout
from demo_training.pictures import NUM_SHAPE_LABELS, draw_digit
from demo_training.skills.sight import scene

NUM_LABELS = NUM_SHAPE_LABELS + 10
_LEAST_SHARE = 0.04  # of a token's square that must show something
_LEAST_CONTRAST = 50  # of a digit's ink

Tiles = np.ndarray[tuple[int, ...], np.dtype[np.uint8]]


def labelled_picture(random: Random, layout: TileLayout) -> tuple[Tiles, Tiles]:
    """Tiles [n, S, S, 3] of a picture, and the labels of their tokens [n, tokens]."""
    if random.random() < 0.35:
        digit = random.randint(0, 9)
        tiles = _cut(draw_digit(digit, random), layout)
        corner = tiles[0, 0, 0].astype(int)
        ink = np.abs(tiles - corner).max(axis=-1) > _LEAST_CONTRAST
        padding = (tiles == 0).all(axis=-1)
        if corner.max() > 100:  # else padding looks like the ground
            ink &= ~padding
        return tiles, _tokens((ink * (NUM_SHAPE_LABELS + digit)).astype(np.uint8), layout)
    picture, labels = scene(random).draw_with_labels(random)
    return _cut(picture, layout), _tokens(_cut_labels(labels, layout), layout)


def _cut(picture: Image.Image, layout: TileLayout) -> Tiles:
    file = io.BytesIO()
    picture.save(file, "PNG", compress_level=1)
    tiled = tile_image(file.getvalue(), layout, layout.max_tiles, 1 << 24)
    size = layout.tile_size
    return np.stack([np.frombuffer(t, np.uint8).reshape(size, size, 3) for t in tiled.tiles])


def _cut_labels(labels: Image.Image, layout: TileLayout) -> Tiles:
    """As pictures are cut, but never blended."""
    size = layout.tile_size
    grid = layout.grid(*labels.size)
    canvas = Image.new("L", (grid.columns * size, grid.rows * size))
    resized = layout.resized(*labels.size, grid)
    canvas.paste(labels.resize(resized, Image.Resampling.NEAREST))
    pixels = np.asarray(canvas).reshape(grid.rows, size, grid.columns, size)
    tiles = list(pixels.transpose(0, 2, 1, 3).reshape(-1, size, size))
    if grid.num_tiles > 1:
        tiles.append(np.asarray(labels.resize((size, size), Image.Resampling.NEAREST)))
    return np.stack(tiles)


def _tokens(pixels: Tiles, layout: TileLayout) -> Tiles:
    """The most frequent label but 0 of each token's square: [n, tokens]."""
    side = round(layout.tile_tokens**0.5)
    square = layout.tile_size // side
    cut = pixels.reshape(-1, side, square, side, square).transpose(0, 1, 3, 2, 4)
    rows = cut.reshape(-1, square * square)
    found = np.zeros(len(rows), np.uint8)
    for i, row in enumerate(rows):
        counts = np.bincount(row, minlength=2)
        best = 1 + counts[1:].argmax()
        if counts[best] >= _LEAST_SHARE * row.size:
            found[i] = best
    return found.reshape(-1, side * side)
