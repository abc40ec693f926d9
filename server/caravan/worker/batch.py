"""A plan's segments as the model's input: laid out on the host, sent at once, spread on the device.

    T tokens, S segments, R seats

The host sends a few numbers for each token and segment. What follows from them is computed where it
is needed: the slots of keys and values from the tables that are on the device already, and the ids
of tokens that the host does not know yet, because the step before drew them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

import caravan_kernels as kernels
from caravan.kv_layout import KVLayout
from caravan.messages import Segment
from caravan.model.step import StepInput
from caravan.worker.prompt_scores import ScoredSpan, scored_rows
from caravan.worker.requests import Requests, RequestState
from caravan.worker.table_store import Extent, TableStore
from caravan.worker.tile_arena import TileArena
from caravan_kernels import PagedSegments

Arrays = dict[str, NDArray[Any]]

PADDING = -1  # as a position: a row that computes nothing that anybody reads


@dataclass(frozen=True, slots=True)
class StepLayout:
    """What is sent for one step.

    token_ids T, positions T, segment T (the token's), query_indptr S + 1, seats S; for each kind
    the length S and the first column S of the segments' contexts; rows to sample, if not all, and
    behind them those that score a prompt's tokens, with these; where patches of pictures are shown,
    if any are; how many rows are no padding, if some are.
    """

    arrays: Arrays
    num_decode: int
    scored: list[ScoredSpan] = field(default_factory=list)

    @property
    def num_segments(self) -> int:
        """S."""
        return len(self.arrays["seats"])

    @property
    def decodes_only(self) -> bool:
        """Whether all segments are single tokens that sample, and none of them is a patch."""
        return self.num_decode == self.num_segments and not {
            "sample_rows",
            "scored_tokens",
            "image_rows",
        }.intersection(self.arrays)


def lay_out(
    segments: Sequence[Segment], requests: Requests, layout: KVLayout, tile_tokens: int = 0
) -> StepLayout:
    """Takes the segments' new pages into the requests' tables and lays out the step.

    The step has the segments in the plan's order. Pages are taken in order of position: a plan
    puts segments of one token first, so those of one request may be out of order in it.
    """
    states, chunked = _take_pages(segments, requests)
    starts = np.array([segment.start for segment in segments])
    lengths = np.array([segment.length for segment in segments])
    ends = starts + lengths
    inside = starts % layout.chunk_len
    indptr = np.concatenate([[0], np.cumsum(lengths)])
    segment_T = np.repeat(np.arange(len(segments), dtype=np.int32), lengths)
    pairs = zip(states, segments, strict=True)
    # all tables have grown: only now are they where they stay
    arrays: Arrays = {
        "token_ids": np.concatenate([state.tokens(part) for state, part in pairs]),
        "positions": np.arange(indptr[-1]) + (ends - indptr[1:])[segment_T],
        "segment": segment_T,
        "query_indptr": indptr.astype(np.int32),
        "seats": np.array([state.seat for state in states]),
        "full_len": ends.astype(np.int32),
        "full_start": np.array([state.full.start for state in states], np.int32),
        "chunked_len": (inside + lengths).astype(np.int32),
        "chunked_start": np.array([extent.start for extent in chunked], np.int32),
    }
    samples = np.array([segment.samples for segment in segments])
    scored = scored_rows(segments, requests)
    if scored or not samples.all() or len(segments) != indptr[-1]:
        arrays["sample_rows"] = indptr[1:][samples] - 1
    if scored:
        arrays["sample_rows"] = np.concatenate([arrays["sample_rows"], scored.row_K])
        arrays["scored_tokens"] = scored.token_K
    arrays |= _shown_patches(segments, tile_tokens)
    num_decode = int((lengths == 1).sum())
    return StepLayout(arrays, num_decode, scored.spans if scored else [])


def _take_pages(
    segments: Sequence[Segment], requests: Requests
) -> tuple[list[RequestState], list[Extent]]:
    """The state of each segment's request, and the chunked table that the segment reads."""
    states = [requests[segment.rid] for segment in segments]
    order: Sequence[int] = range(len(segments))
    if len(set(map(id, states))) < len(segments):
        order = sorted(order, key=lambda s: segments[s].start)
    chunked: dict[int, Extent] = {}
    for s in order:
        segment = segments[s]
        if segment.full_pages or segment.chunked_pages:
            requests.take_pages(segment)
        chunked[s] = states[s].chunked
    return states, [chunked[s] for s in range(len(segments))]


def no_rows() -> StepLayout:
    """A step without segments: what padding is added to."""
    types = {"token_ids": np.int64, "positions": np.int64, "segment": np.int32}
    types |= {"query_indptr": np.int32, "seats": np.int64}
    types |= {
        f"{kind}_{what}": np.int32 for kind in ("full", "chunked") for what in ("len", "start")
    }
    return StepLayout({name: np.empty(0, dtype) for name, dtype in types.items()}, num_decode=0)


def pad_decode(step: StepLayout, num_rows: int, spare_seat: int) -> StepLayout:
    """A step of single tokens, with rows of padding up to `num_rows`."""
    extra = num_rows - step.num_segments
    assert step.decodes_only, step
    assert extra >= 0, (step, num_rows)
    fillers = {"positions": PADDING, "seats": spare_seat}
    arrays = {
        name: np.concatenate([array, np.full(extra, fillers.get(name, 0), array.dtype)])
        for name, array in step.arrays.items()
    }
    arrays["segment"] = np.arange(num_rows, dtype=np.int32)
    arrays["query_indptr"] = np.arange(num_rows + 1, dtype=np.int32)
    arrays["num_rows"] = np.array([step.num_segments], np.int32)
    return StepLayout(arrays, num_rows)


@dataclass(frozen=True, slots=True)
class StepMemory:
    """What outlives the steps on the device."""

    layout: KVLayout
    num_kv_heads: int
    requests: Requests
    last_token_R: Tensor  # int64; one more seat than there are requests: padding's
    tiles: TileArena | None


def step_input(sent: Mapping[str, Tensor], num_decode: int, memory: StepMemory) -> StepInput:
    """The model's input from what was sent: device work only, which a graph can capture."""
    token_ids_T, positions_T, segment_T = (
        sent[name] for name in ("token_ids", "positions", "segment")
    )
    drawn_T = memory.last_token_R[sent["seats"][segment_T]]
    layout = memory.layout
    kinds = {
        kind: _paged_segments(kind, sent, num_decode, memory) if slices else None
        for kind, slices in (("full", layout.full_slices), ("chunked", layout.chunked_slices))
    }
    features_IH = None
    if "image_rows" in sent:
        assert memory.tiles is not None, "the model sees no pictures"
        features_IH = memory.tiles.features_PH[sent["image_patches"]]
    return StepInput(
        token_ids_T=token_ids_T.where(token_ids_T >= 0, drawn_T),
        positions_T=positions_T,
        sample_rows_S=sent.get("sample_rows"),
        chunked=kinds["chunked"],
        full=kinds["full"],
        image_rows_I=sent.get("image_rows"),
        image_features_IH=features_IH,
    )


def _paged_segments(
    kind: str, sent: Mapping[str, Tensor], num_decode: int, memory: StepMemory
) -> PagedSegments:
    chunked = kind == "chunked"
    store: TableStore = memory.requests.chunked if chunked else memory.requests.full
    page_start_S, context_len_S = sent[f"{kind}_start"], sent[f"{kind}_len"]
    return PagedSegments(
        num_decode=num_decode,
        query_indptr=sent["query_indptr"],
        context_len=context_len_S,
        page_start=page_start_S,
        pages_LN=store.pages_LN,
        slots_LT=kernels.token_slots(
            sent["positions"],
            sent["segment"],
            page_start_S,
            store.pages_LN,
            block_len=memory.layout.block_len,
            chunk_len=memory.layout.chunk_len if chunked else None,
        ),
        num_rows=sent.get("num_rows"),
        decode_tasks=kernels.plan_decode(context_len_S[:num_decode], memory.num_kv_heads)
        if num_decode
        else None,
    )


def _shown_patches(segments: Sequence[Segment], tile_tokens: int) -> Arrays:
    """Rows of the step that show a patch, and the patch of the arena; nothing if none does."""
    rows, patches = [], []
    first_row = 0
    for segment in segments:
        end = segment.start + segment.length
        for tile in segment.tiles:
            positions = np.arange(
                max(tile.start, segment.start), min(tile.start + tile_tokens, end)
            )
            rows.append(first_row + positions - segment.start)
            patches.append(tile.slot * tile_tokens + positions - tile.start)
        first_row += segment.length
    if not rows:
        return {}
    return {"image_rows": np.concatenate(rows), "image_patches": np.concatenate(patches)}
