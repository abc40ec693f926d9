"""Encoded tiles of pictures on the device, in the slots that the scheduler gives out.

N tiles, S pixels of a tile's side, P patches of all slots, H hidden size
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from caravan.messages import TileToEncode
from caravan.model.llama4 import Llama4
from caravan.tiles import TileSlots
from caravan.worker.staging import Staging


class TileArena:
    """What the vision encoder made of tiles, until their slots get others."""

    def __init__(
        self,
        model: Llama4,
        slots: TileSlots,
        dtype: torch.dtype,
        device: torch.device,
        staging: Staging,
    ) -> None:
        architecture = model.architecture
        assert architecture.vision is not None
        self.tile_tokens = slots.tile_tokens
        self._model = model
        self._tile_size = architecture.vision.tile_size
        self._staging = staging
        shape = (slots.num_slots, slots.tile_tokens, architecture.hidden_size)
        self._features_NPH = torch.empty(shape, dtype=dtype, device=device)

    @property
    def features_PH(self) -> Tensor:
        """Patch i of slot n is row n * tile_tokens + i."""
        return self._features_NPH.flatten(0, 1)

    def encode(self, tiles: Sequence[TileToEncode]) -> None:
        """Encodes the tiles of one step together."""
        pixels = np.frombuffer(bytearray().join(tile.pixels for tile in tiles), np.uint8)
        shape = (len(tiles), self._tile_size, self._tile_size, 3)
        slots = np.array([tile.slot for tile in tiles])
        sent = self._staging.send({"tiles": pixels.reshape(shape), "slots": slots})
        features_NPH = self._model.encode_tiles(sent["tiles"])
        self._features_NPH[sent["slots"]] = features_NPH.to(self._features_NPH.dtype)
