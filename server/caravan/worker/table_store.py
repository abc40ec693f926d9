"""The page tables of all requests for one kind of layer, on the device.

    L slices, N columns: column c of a request's table is a block, its rows the pages of the slices

A table is an *extent*: columns side by side, with room to grow. One that outgrows its room moves to
the end of the store with twice the room; when the end is reached, all of them are laid out anew.
So a step sends the columns that changed, seldom all of them, and the store needs a few bytes for
each page that exists, whatever the longest context is. Where a table is counts only when all tables
of the step have grown.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from caravan.worker.staging import Staging

SMALLEST_ROOM = 16  # columns


class Extent:
    """One request's table: `length` blocks from column `start`."""

    __slots__ = ("length", "room", "start")

    def __init__(self) -> None:
        self.start = 0
        self.length = 0
        self.room = 0


class TableStore:
    """Extents in one device tensor.

    `most_blocks` bounds the blocks of all open tables together, `most_tables` their number.
    """

    def __init__(
        self, slices: int, most_blocks: int, most_tables: int, device: torch.device
    ) -> None:
        # Laid out anew, tables take two columns per block or SMALLEST_ROOM each. A step may close
        # each table and open another, and so much again is left for them to move to.
        capacity = 4 * most_blocks + 4 * SMALLEST_ROOM * most_tables
        self._host_LN = np.zeros((slices, capacity), np.int32)
        shared = torch.from_numpy(self._host_LN)
        self.pages_LN: Tensor = shared if device.type == "cpu" else shared.to(device)
        self._on_host = device.type == "cpu"
        self._open: set[Extent] = set()
        self._closed: list[Extent] = []  # since the step began: it may still read them
        self._end = 0
        self._changed: list[NDArray[np.int64]] = []
        self._moved = False

    def open(self) -> Extent:
        """An empty table."""
        extent = Extent()
        self._open.add(extent)
        return extent

    def close(self, extent: Extent) -> None:
        """Forgets a table, when the step that is being laid out has been sent."""
        self._open.remove(extent)
        self._closed.append(extent)

    def append(self, extent: Extent, pages: Sequence[int]) -> None:
        """Adds blocks whose pages come block by block, and inside a block slice by slice."""
        if not pages:
            return
        slices = len(self._host_LN)
        columns = np.array(pages, np.int32).reshape(-1, slices).T
        needed = extent.length + columns.shape[1]
        if needed > extent.room:
            self._move(extent, max(SMALLEST_ROOM, 2 * needed))
        start = extent.start + extent.length
        extent.length += columns.shape[1]
        self._host_LN[:, start : start + columns.shape[1]] = columns
        self._note(start, start + columns.shape[1])

    def send_changes(self, staging: Staging) -> None:
        """Brings the device's tables up to date, in the order of the stream."""
        moved, changed = self._moved, self._changed
        self._moved, self._changed, self._closed = False, [], []
        if self._on_host:
            return
        if moved:
            whole = {"pages": self._host_LN[:, : self._end]}
            self.pages_LN[:, : self._end] = staging.send(whole)["pages"]
        elif changed:
            columns = np.concatenate(changed)
            sent = staging.send({"columns": columns, "pages": self._host_LN[:, columns]})
            self.pages_LN.index_copy_(1, sent["columns"], sent["pages"])

    def _move(self, extent: Extent, room: int) -> None:
        """Gives an extent that is too small new columns at the end."""
        if self._end + room > self._host_LN.shape[1]:
            self._lay_out_anew()
        old = extent.start
        self._place(extent, room)
        self._copy(self._host_LN, old, extent)
        self._note(extent.start, extent.start + extent.length)

    def _lay_out_anew(self) -> None:
        """Puts all extents side by side at the beginning."""
        before = self._host_LN.copy()
        self._end = 0
        for extent in (*self._open, *self._closed):
            old = extent.start
            self._place(extent, max(SMALLEST_ROOM, 2 * extent.length))
            self._copy(before, old, extent)
        self._moved = True

    def _place(self, extent: Extent, room: int) -> None:
        extent.start, extent.room = self._end, room
        self._end += room
        assert self._end <= self._host_LN.shape[1], (self._end, room)

    def _copy(self, source_LN: NDArray[np.int32], start: int, extent: Extent) -> None:
        columns = source_LN[:, start : start + extent.length]
        self._host_LN[:, extent.start : extent.start + extent.length] = columns

    def _note(self, start: int, end: int) -> None:
        self._changed.append(np.arange(start, end))
