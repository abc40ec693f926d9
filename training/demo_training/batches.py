"""Dialogues of like length, put together."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

import numpy as np
import torch
from torch import Tensor

from demo_training import mixture
from demo_training.encoding import Encoded, Encoder

_ALIKE = 32  # lengths are multiples of this


@dataclass(slots=True)
class Batch:
    """B sequences of T tokens, padded at the end; rows index the flattened batch."""

    tokens_BT: Tensor
    tiles: Tensor | None  # uint8 [tiles, S, S, 3]
    patch_rows: Tensor
    rows: Tensor  # whose next token is learned
    targets: Tensor


class Batches:
    """An endless stream of batches of about `num_tokens` tokens each."""

    def __init__(
        self,
        encoder: Encoder,
        tile_tokens: int,
        makers: dict[mixture.Maker, float],
        random: Random,
        num_tokens: int,
    ) -> None:
        self.length = 0.0  # how long the longest texts may be, 0 to 1
        self._encoder = encoder
        self._tile_tokens = tile_tokens
        self._makers = makers
        self._random = random
        self._num_tokens = num_tokens

    def __iter__(self) -> Iterator[Batch]:
        waiting: dict[int, list[Encoded]] = {}
        while True:
            encoded = self._encoder.encode(mixture.draw(self._random, self._makers, self.length))
            length = _ALIKE * math.ceil(len(encoded.tokens) / _ALIKE)
            bucket = waiting.setdefault(length, [])
            bucket.append(encoded)
            if len(bucket) * length >= self._num_tokens:
                del waiting[length]
                yield self._batch(bucket, length)

    def _batch(self, bucket: list[Encoded], length: int) -> Batch:
        tokens = np.zeros((len(bucket), length), np.int64)
        starts: list[int] = []
        tiles: list[np.ndarray[tuple[int, ...], np.dtype[np.uint8]]] = []
        rows: list[int] = []
        for i, encoded in enumerate(bucket):
            tokens[i, : len(encoded.tokens)] = encoded.tokens
            starts += [i * length + start for start in encoded.tile_starts]
            tiles += encoded.tiles
            rows += [i * length + at - 1 for at, learned in enumerate(encoded.learned) if learned]
        patches = np.add.outer(np.array(starts, np.int64), np.arange(self._tile_tokens)).ravel()
        learned = torch.tensor(rows)
        flat = torch.from_numpy(tokens).flatten()
        return Batch(
            tokens_BT=torch.from_numpy(tokens),
            tiles=torch.from_numpy(np.stack(tiles)) if tiles else None,
            patch_rows=torch.from_numpy(patches),
            rows=learned,
            targets=flat[learned + 1],
        )
