"""What each token of a tile shows: the encoder learns to see before the decoder asks.

A tile of 64 x 64 pixels has 4 x 4 tokens. The one that holds the centre of a shape or a digit gets
its label, all others none, so that the decoder finds one token for each thing that it may count.
"""

from __future__ import annotations

import io
from random import Random

import numpy as np
from PIL import Image

from caravan.images.decode import tile_image
from caravan.tiles import TileLayout
from demo_training.pictures import NUM_SHAPE_LABELS, label, place_digit
from demo_training.skills.sight import scene

NUM_LABELS = NUM_SHAPE_LABELS + 10
_DIGITS = 0.4  # of the pictures
_MAX_PIXELS = 1 << 24
_INSIDE = 0.999  # a wide digit may have its centre on the border

Tiles = np.ndarray[tuple[int, ...], np.dtype[np.uint8]]
Thing = tuple[float, float, int]  # centre, in parts of width and height, and label


def labelled_picture(random: Random, layout: TileLayout) -> tuple[Tiles, Tiles]:
    """Tiles [n, S, S, 3] of a picture, and the labels of their tokens [n, tokens]."""
    if random.random() < _DIGITS:
        digit = random.randint(0, 9)
        picture, (x, y) = place_digit(digit, random)
        things = [(x, y, NUM_SHAPE_LABELS + digit)]
    else:
        shown = scene(random)
        picture = shown.draw(random)
        things = [(shape.x, shape.y, label(shape)) for shape in shown.shapes]
    return _cut(picture, layout), _labels(things, picture.size, layout)


def _cut(picture: Image.Image, layout: TileLayout) -> Tiles:
    file = io.BytesIO()
    picture.save(file, "PNG", compress_level=1)
    tiled = tile_image(file.getvalue(), layout, layout.max_tiles, _MAX_PIXELS)
    size = layout.tile_size
    return np.stack([np.frombuffer(t, np.uint8).reshape(size, size, 3) for t in tiled.tiles])


def _labels(things: list[Thing], size: tuple[int, int], layout: TileLayout) -> Tiles:
    grid = layout.grid(*size)
    width, height = layout.resized(*size, grid)
    side = round(layout.tile_tokens**0.5)
    canvas = np.zeros((grid.rows * side, grid.columns * side), np.uint8)
    whole = np.zeros((side, side), np.uint8)
    square = layout.tile_size // side
    for x, y, found in things:
        x, y = min(x, _INSIDE), min(y, _INSIDE)
        canvas[int(y * height) // square, int(x * width) // square] = found
        whole[int(y * side), int(x * side)] = found
    cut = canvas.reshape(grid.rows, side, grid.columns, side).transpose(0, 2, 1, 3)
    labels = cut.reshape(-1, layout.tile_tokens)
    if grid.num_tiles > 1:
        labels = np.concatenate([labels, whole.reshape(1, -1)])
    return labels
