"""A StepPlan's segments as the model's input: ids, positions and page tables of both kinds.

T tokens, S segments, L slices, N pages
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from caravan.kv_layout import KVLayout, chunk_start
from caravan.messages import Segment
from caravan.model.step import StepInput
from caravan.worker.requests import PageTable, RequestState
from caravan.worker.tile_arena import TileArena
from caravan_kernels import PagedSegments


@dataclass(slots=True)
class KindTables:
    """The page tables of one kind of layer while a step is put together."""

    block_len: int
    context_len: list[int] = field(default_factory=list)
    pages_LN: list[NDArray[np.int32]] = field(default_factory=list)
    slots_LT: list[NDArray[np.int64]] = field(default_factory=list)

    def add(self, table: PageTable, start: int, length: int) -> None:
        """One segment: `start` counts from the beginning of the table's context."""
        end = start + length
        pages_LN = table.pages_LN[:, : -(-end // self.block_len)]
        blocks, offsets = np.divmod(np.arange(start, end), self.block_len)
        self.context_len.append(end)
        self.pages_LN.append(pages_LN.copy())  # a later segment of the request may change it
        self.slots_LT.append(pages_LN[:, blocks].astype(np.int64) * self.block_len + offsets)

    def build(
        self, order: Sequence[int], query_indptr: Tensor, num_decode: int, device: torch.device
    ) -> PagedSegments:
        """The tables with the segments in the given order."""
        pages = [self.pages_LN[s] for s in order]
        context_len = [self.context_len[s] for s in order]
        page_indptr = _indptr([p.shape[1] for p in pages])
        return PagedSegments(
            num_decode=num_decode,
            query_indptr=query_indptr,
            context_len=torch.tensor(context_len, dtype=torch.int32).to(device),
            page_indptr=page_indptr.to(device),
            pages_LN=_joined(pages).to(device),
            slots_LT=_joined([self.slots_LT[s] for s in order]).to(device),
        )


def _joined(columns: Sequence[NDArray[Any]]) -> Tensor:
    """[L, n] of every segment side by side; each slice's row is contiguous."""
    return torch.from_numpy(np.concatenate(columns, axis=1)).contiguous()


def _indptr(lengths: Sequence[int]) -> Tensor:
    return torch.from_numpy(np.cumsum([0, *lengths], dtype=np.int32))


def build_step(
    segments: Sequence[Segment],
    requests: Mapping[int, RequestState],
    layout: KVLayout,
    device: torch.device,
    arena: TileArena | None = None,
) -> StepInput:
    """Takes the segments' new pages into the requests' tables and lays out the step.

    The step has the segments in the plan's order. Pages are taken in order of position: a plan
    puts segments of one token first, so those of one request may be out of order in it. `arena`
    holds the tiles that the segments show.
    """
    chunked, full = KindTables(layout.block_len), KindTables(layout.block_len)
    by_position = sorted(range(len(segments)), key=lambda s: segments[s].start)
    for s in by_position:
        segment = segments[s]
        request = requests[segment.rid]
        request.take_pages(segment)
        in_chunk = segment.start - chunk_start(segment.start, layout.chunk_len)
        if layout.chunked_slices:
            chunked.add(request.chunked, in_chunk, segment.length)
        if layout.full_slices:
            full.add(request.full, segment.start, segment.length)
    order = np.argsort(by_position).tolist()  # segment -> where its tables are
    query_indptr = _indptr([segment.length for segment in segments])
    num_decode = sum(segment.length == 1 for segment in segments)
    token_ids = np.concatenate([requests[segment.rid].tokens(segment) for segment in segments])
    positions = np.concatenate([np.arange(s.start, s.start + s.length) for s in segments])
    last_rows = query_indptr[1:].long() - 1
    samples = torch.tensor([segment.samples for segment in segments])
    tables = {
        kind: kind_tables.build(order, query_indptr.to(device), num_decode, device)
        if kind_tables.context_len
        else None
        for kind, kind_tables in (("chunked", chunked), ("full", full))
    }
    rows_I, features_IH = _shown_patches(segments, arena) if arena else (None, None)
    return StepInput(
        token_ids_T=torch.from_numpy(token_ids.astype(np.int64)).to(device),
        positions_T=torch.from_numpy(positions).to(device),
        sample_rows_S=last_rows[samples].to(device),
        chunked=tables["chunked"],
        full=tables["full"],
        image_rows_I=rows_I,
        image_features_IH=features_IH,
    )


def _shown_patches(
    segments: Sequence[Segment], arena: TileArena
) -> tuple[Tensor | None, Tensor | None]:
    """Rows of the step that show a patch, and what the encoder made of it; None if none does."""
    rows, patches = [], []
    first_row = 0
    for segment in segments:
        end = segment.start + segment.length
        for tile in segment.tiles:
            tile_end = tile.start + arena.tile_tokens
            positions = np.arange(max(tile.start, segment.start), min(tile_end, end))
            rows.append(first_row + positions - segment.start)
            patches.append(tile.slot * arena.tile_tokens + positions - tile.start)
        first_row += segment.length
    if not rows:
        return None, None
    device = arena.features_PH.device
    patches_I = torch.from_numpy(np.concatenate(patches)).to(device)
    return torch.from_numpy(np.concatenate(rows)).to(device), arena.features_PH[patches_I]
