"""One step while it is being planned."""

from __future__ import annotations

from caravan.messages import Admission, Segment, SegmentTile, TileToEncode
from caravan.scheduling.request import PromptTile, Request
from caravan.scheduling.tile_cache import TileCache


class StepDraft:
    """The segments and admissions of a step, and how many tokens and tiles still fit it."""

    __slots__ = (
        "_cache",
        "_segments",
        "_tile_budget",
        "_tile_tokens",
        "admitted",
        "budget",
        "chunk_ends",
        "lacks_tiles",
        "reused_tiles",
        "tiles",
    )

    def __init__(self, budget: int, tile_budget: int, tile_tokens: int, cache: TileCache) -> None:
        self.budget = budget
        self.admitted: list[Admission] = []
        self.chunk_ends: list[Request] = []  # their chunked pages come back after the step
        self.tiles: list[TileToEncode] = []
        self.lacks_tiles = False  # a request stopped before a tile that the step cannot encode
        self.reused_tiles = 0
        self._tile_budget = tile_budget
        self._tile_tokens = tile_tokens
        self._cache = cache
        self._segments: list[Segment] = []

    def advance(self, request: Request) -> bool:
        """Plans as many of the request's tokens as budgets and free pages allow.

        False: the pages ended first. A token that the step draws is for the next step.
        """
        while wanted := min(self.budget, request.num_missing):
            length = request.tables.room(wanted)
            if not length:
                return False
            length, tiles = self._shown(request, length)
            if not length:
                self.lacks_tiles = True
                return True
            if self._add(request, length, tiles):
                return True
        return True

    def segments(self) -> list[Segment]:
        """All segments: those of one token first, otherwise in the order they were planned."""
        return sorted(self._segments, key=lambda segment: segment.length != 1)

    def _shown(self, request: Request, length: int) -> tuple[int, list[SegmentTile]]:
        """The next `length` tokens' tiles; fewer tokens if a tile is neither kept nor encoded now.

        Only tiles that this step shows are encoded: what runs ahead could be gone when it is used.
        """
        start = request.num_computed
        tiles: list[SegmentTile] = []
        for tile in request.tiles_in(start, start + length, self._tile_tokens):
            slot = self._slot(tile, begins=tile.start >= start)
            if slot is None:
                return max(0, tile.start - start), tiles
            tiles.append(SegmentTile(tile.start, slot))
        return length, tiles

    def _slot(self, tile: PromptTile, *, begins: bool) -> int | None:
        """Where the tile is, or will be when the step has encoded it."""
        slot = self._cache.find(tile.key)
        if slot is not None:
            self.reused_tiles += begins
            return slot
        if len(self.tiles) == self._tile_budget:
            return None
        slot = self._cache.add(tile.key)
        if slot is not None:
            self.tiles.append(TileToEncode(slot, tile.pixels))
        return slot

    def _add(self, request: Request, length: int, tiles: list[SegmentTile]) -> bool:
        """Plans one segment, inside a chunk, and takes its pages; whether it samples."""
        start = request.num_computed
        full_pages, chunked_pages = request.tables.grow(length)
        samples = start + length == request.num_known
        request.num_drawn += samples
        segment = Segment(request.rid, start, length, full_pages, chunked_pages, samples, tiles)
        self._segments.append(segment)
        self.budget -= length
        if request.tables.chunk_ended:
            self.chunk_ends.append(request)
        return samples
