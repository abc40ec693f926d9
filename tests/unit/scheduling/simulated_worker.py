"""A worker without a model: it keeps page tables from plans and tokens in place of keys and values.

Each token is written to its slot of each page, and a segment is computed from what is read back
there, over all positions that attention would read. A page that is lost, freed too early or shared
by requests with nothing in common shows as another request's token. Where a prompt shows a tile,
what the tile's slot holds is written instead, so a wrong slot shows as another picture. Nothing
here comes from `caravan.scheduling`.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field

from caravan.kv_layout import KVLayout
from caravan.messages import Admission, Sampled, Segment, StepPlan, StepResult

VOCABULARY = 100
TILE_TOKENS = 2

Cell = tuple[int, int, int]  # the writer's rid, or of a prompt its family's; position, token


def next_token(layout: KVLayout, tokens: list[int]) -> int:
    """The model: a function of every token that some layer reads at the last position."""
    last = len(tokens) - 1
    start = 0 if layout.full_slices else last - last % layout.chunk_len
    return zlib.crc32(repr((last, tokens[start:])).encode()) % VOCABULARY


def patch_token(pixels: bytes, offset: int) -> int:
    """The vision encoder: a number for each patch of a tile, unlike any token."""
    return VOCABULARY + zlib.crc32(pixels + bytes([offset]))


@dataclass
class WorkerRequest:
    """What the worker keeps of one request."""

    tokens: list[int]
    num_prompt: int
    num_computed: int = 0
    full_table: list[int] = field(default_factory=list)
    chunked_table: list[int] = field(default_factory=list)


class SimulatedWorker:
    """Executes plans; every assertion is a promise of the scheduler to the worker."""

    def __init__(self, layout: KVLayout, num_pages: int) -> None:
        self.layout = layout
        self.requests: dict[int, WorkerRequest] = {}
        self.families: dict[int, int] = {}  # rid: a number of those with its prompt
        self.num_steps = 0
        self.tile_slots: dict[int, bytes] = {}
        self._arena: list[list[Cell | None]] = [[None] * layout.block_len for _ in range(num_pages)]

    def execute(self, plan: StepPlan) -> StepResult:
        """Releases, admits, writes all segments, then reads and samples them in order."""
        assert plan.step == self.num_steps
        self.num_steps += 1
        for rid in plan.released:
            del self.requests[rid]
        for admission in plan.admitted:
            self._admit(admission)
        assert plan.segments
        assert len({tile.slot for tile in plan.tiles}) == len(plan.tiles)
        for tile in plan.tiles:
            self.tile_slots[tile.slot] = tile.pixels
        lengths = [segment.length for segment in plan.segments]
        assert lengths == sorted(lengths, key=lambda length: length != 1)

        tables: dict[tuple[int, int], tuple[list[int], list[int]]] = {}
        for segment in sorted(plan.segments, key=lambda segment: segment.start):
            tables[segment.rid, segment.start] = self._write(segment)
        sampled = []
        for segment in plan.segments:
            end = segment.start + segment.length
            context = self._read(segment.rid, end, *tables[segment.rid, segment.start])
            tokens = self.requests[segment.rid].tokens
            assert segment.samples == (end == len(tokens)), segment
            if segment.samples:
                token = next_token(self.layout, context)
                tokens.append(token)
                sampled.append(Sampled(segment.rid, token))
        return StepResult(sampled)

    def _admit(self, admission: Admission) -> None:
        assert admission.rid not in self.requests
        assert 0 < admission.num_prompt <= len(admission.tokens)
        request = WorkerRequest(list(admission.tokens), admission.num_prompt)
        self.requests[admission.rid] = request

    def _write(self, segment: Segment) -> tuple[list[int], list[int]]:
        """Extends the request's tables and fills the segment's slots; the tables it uses."""
        layout, request = self.layout, self.requests[segment.rid]
        start, end = segment.start, segment.start + segment.length
        chunk = start // layout.chunk_len * layout.chunk_len
        if request.num_computed == 0:  # a family's request begins behind what it shares
            assert start == 0 or (segment.rid in self.families and start <= request.num_prompt)
            request.num_computed = start
        assert start == request.num_computed < end <= len(request.tokens), segment
        assert (end - 1) // layout.chunk_len == start // layout.chunk_len, segment
        if start == chunk:
            request.chunked_table = []
        request.full_table += segment.full_pages
        request.chunked_table += segment.chunked_pages
        full_blocks = (end - 1) // layout.block_len + 1
        chunked_blocks = (end - 1 - chunk) // layout.block_len + 1
        assert len(request.full_table) == full_blocks * layout.full_slices, segment
        assert len(request.chunked_table) == chunked_blocks * layout.chunked_slices, segment

        shown = {
            tile.start + offset: patch_token(self.tile_slots[tile.slot], offset)
            for tile in segment.tiles
            for offset in range(TILE_TOKENS)
        }
        for tile in segment.tiles:
            assert tile.start < end, segment
            assert start < tile.start + TILE_TOKENS, segment
        for position in range(start, end):
            owner = self._owner(segment.rid, position)
            cell = (owner, position, shown.get(position, request.tokens[position]))
            full = self._pages(request.full_table, layout.full_slices, position)
            chunked = self._pages(request.chunked_table, layout.chunked_slices, position - chunk)
            for page, slot in full + chunked:
                self._arena[page][slot] = cell
        request.num_computed = end
        return request.full_table, request.chunked_table

    def _read(self, rid: int, end: int, full: list[int], chunked: list[int]) -> list[int]:
        """The tokens [0, end) as attention sees them; those it cannot see are 0."""
        layout = self.layout
        chunk = (end - 1) // layout.chunk_len * layout.chunk_len
        tokens = [0] * end
        for position in range(end):
            slots = self._pages(full, layout.full_slices, position)
            if position >= chunk:
                slots += self._pages(chunked, layout.chunked_slices, position - chunk)
            for page, slot in slots:
                cell = self._arena[page][slot]
                assert cell is not None, (rid, position, page)
                assert cell[:2] == (self._owner(rid, position), position), (rid, page, cell)
                tokens[position] = cell[2]
        return tokens

    def _owner(self, rid: int, position: int) -> int:
        in_prompt = position < self.requests[rid].num_prompt
        return self.families.get(rid, rid) if in_prompt else rid

    def _pages(self, table: list[int], slices: int, position: int) -> list[tuple[int, int]]:
        """(page, slot) of a position in every slice of a table."""
        block, slot = divmod(position, self.layout.block_len)
        return [(page, slot) for page in table[block * slices : (block + 1) * slices]]
