"""Which encoded tiles of pictures the worker keeps, in a fixed number of slots.

A tile is named by its picture's content, so a picture that comes again, in the next turn or from
another client, is encoded once. Nothing but the step being planned holds a tile: when one is needed
again and is gone, it is encoded again. So one slot is enough for every request to get on.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import NamedTuple


class TileKey(NamedTuple):
    """A tile, by its content."""

    image_key: bytes
    number: int  # of the tile in the picture


class TileCache:
    """Slots 0 to `num_slots` - 1; the tile used least recently makes room."""

    __slots__ = ("_free", "_in_step", "_slots")

    def __init__(self, num_slots: int) -> None:
        self._free = list(range(num_slots - 1, -1, -1))
        self._slots: OrderedDict[TileKey, int] = OrderedDict()  # least recently used first
        self._in_step: set[TileKey] = set()

    def find(self, key: TileKey) -> int | None:
        """The slot of a tile that is kept, held until the step is planned."""
        slot = self._slots.get(key)
        if slot is not None:
            self._hold(key)
        return slot

    def add(self, key: TileKey) -> int | None:
        """A slot for a tile that is not kept; None if the step being planned holds them all."""
        assert key not in self._slots, key
        if self._free:
            slot = self._free.pop()
        else:
            oldest = next(iter(self._slots), None)
            if oldest is None or oldest in self._in_step:
                return None
            slot = self._slots.pop(oldest)
        self._slots[key] = slot
        self._hold(key)
        return slot

    def release_step(self) -> None:
        """The step is planned. Steps run in order, so the next may overwrite its tiles."""
        self._in_step.clear()

    def _hold(self, key: TileKey) -> None:
        self._slots.move_to_end(key)
        self._in_step.add(key)
