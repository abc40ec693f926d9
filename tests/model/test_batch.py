"""A plan's segments become tables; checked slot by slot on a cache with three chunked slices."""

from __future__ import annotations

from typing import Any

import torch

from caravan.kv_layout import KVLayout
from caravan.messages import Admission, Sampling, Segment, SegmentTile
from caravan.model.step import StepInput
from caravan.worker.batch import build_step
from caravan.worker.requests import RequestState

CPU = torch.device("cpu")
# blocks of 2 tokens, chunks of 5: the last block of a chunk is half full
LAYOUT = KVLayout(
    block_len=2, chunk_len=5, full_slices=1, chunked_slices=3, slice_layers=1, page_bytes=1
)


def admit(*lengths: int) -> dict[int, RequestState]:
    """Requests 0, 1, ...; token i of request r is 100 r + i."""
    states = {}
    for rid, length in enumerate(lengths):
        tokens = [100 * rid + i for i in range(length)]
        states[rid] = RequestState(Admission(rid, tokens, length, Sampling(max_tokens=1)), LAYOUT)
    return states


def test_one_segment() -> None:
    chunked = [10, 20, 30, 11, 21, 31]  # block by block, in a block slice by slice
    segment = Segment(0, 0, 3, [7, 8], chunked, samples=True)
    step = build_step([segment], admit(3), LAYOUT, CPU)
    assert step.token_ids_T.tolist() == [0, 1, 2]
    assert step.positions_T.tolist() == [0, 1, 2]
    assert step.sample_rows_S.tolist() == [2]
    assert step.full is not None
    assert step.chunked is not None
    assert step.full.pages_LN.tolist() == [[7, 8]]
    assert step.chunked.pages_LN.tolist() == [[10, 11], [20, 21], [30, 31]]
    assert step.full.slots_LT.tolist() == [[14, 15, 16]]
    assert step.chunked.slots_LT.tolist() == [[20, 21, 22], [40, 41, 42], [60, 61, 62]]
    assert step.chunked.context_len.tolist() == [3]
    assert step.full.num_decode == 0


def two_chunks() -> tuple[StepInput, dict[int, RequestState]]:
    """Tokens [3, 6) of a request: [3, 5) ends its chunk, [5, 6) starts the next.

    The plan puts the segment of one token first, though its position is the later one.
    """
    states = admit(6)
    build_step([Segment(0, 0, 3, [7, 8], [10, 20, 30, 11, 21, 31], False)], states, LAYOUT, CPU)
    later = Segment(0, 5, 1, [], [13, 23, 33], samples=True)
    earlier = Segment(0, 3, 2, [9], [12, 22, 32], samples=False)
    return build_step([later, earlier], states, LAYOUT, CPU), states


def test_segments_on_both_sides_of_a_chunk_boundary_in_one_step() -> None:
    step, _ = two_chunks()
    assert step.chunked is not None
    assert step.full is not None
    assert step.positions_T.tolist() == [5, 3, 4]
    assert step.sample_rows_S.tolist() == [0]
    assert step.chunked.num_decode == 1
    assert step.chunked.context_len.tolist() == [1, 5]
    assert step.chunked.page_indptr.tolist() == [0, 1, 4]
    assert step.chunked.pages_LN[0].tolist() == [13, 10, 11, 12]
    assert step.chunked.slots_LT[1].tolist() == [46, 43, 44]
    assert step.full.context_len.tolist() == [6, 5]
    assert step.full.pages_LN.tolist() == [[7, 8, 9, 7, 8, 9]]
    assert step.full.slots_LT.tolist() == [[19, 17, 18]]


def test_a_later_step_reads_the_new_chunk_only() -> None:
    _, states = two_chunks()
    states[0].append_token(42)
    step = build_step([Segment(0, 6, 1, [14], [], samples=True)], states, LAYOUT, CPU)
    assert step.chunked is not None
    assert step.full is not None
    assert step.token_ids_T.tolist() == [42]
    assert step.chunked.context_len.tolist() == [2]
    assert step.chunked.pages_LN.tolist() == [[13], [23], [33]]
    assert step.full.pages_LN.tolist() == [[7, 8, 9, 14]]


def test_models_with_one_kind_of_layer() -> None:
    layout = KVLayout(
        block_len=2, chunk_len=5, full_slices=0, chunked_slices=1, slice_layers=4, page_bytes=1
    )
    states = {0: RequestState(Admission(0, [1, 2], 2, Sampling(max_tokens=1)), layout)}
    step = build_step([Segment(0, 0, 2, [], [3], samples=True)], states, layout, CPU)
    assert step.full is None
    assert step.chunked is not None


def test_tables_grow_past_their_first_capacity() -> None:
    states = admit(1)
    for token in range(1, 500):
        states[0].append_token(token)
    assert states[0].tokens(Segment(0, 490, 10, [], [], False)).tolist() == [*range(490, 500)]
    for page in range(200):
        states[0].full.append([page])
    assert states[0].full.pages_LN.tolist() == [[*range(200)]]


class Arena:
    """Three slots of tiles of four patches; patch i of slot n is [10 * n + i]."""

    tile_tokens = 4
    features_PH = torch.tensor([[10.0 * slot + i] for slot in range(3) for i in range(4)])


def test_patches_stand_in_the_rows_of_their_segment() -> None:
    states = admit(3, 12)
    other = Segment(0, 0, 3, [1, 2], [3, 4, 5, 6, 7, 8], samples=True)
    # a tile at [1, 5) in the chunk [0, 5), and the first two patches of one at [6, 10)
    tiles = [SegmentTile(1, slot=2), SegmentTile(6, slot=0)]
    first = Segment(1, 0, 5, [11, 12, 13], [*range(20, 29)], False, tiles[:1])
    second = Segment(1, 5, 3, [14], [*range(29, 35)], False, tiles[1:])
    arena: Any = Arena()
    step = build_step([other, first, second], states, LAYOUT, CPU, arena)
    assert step.image_rows_I is not None
    assert step.image_features_IH is not None
    assert step.image_rows_I.tolist() == [4, 5, 6, 7, 9, 10]
    assert step.image_features_IH[:, 0].tolist() == [20, 21, 22, 23, 0, 1]
    rest = Segment(1, 8, 2, [15], [35, 36, 37], False, tiles[1:])
    step = build_step([rest], states, LAYOUT, CPU, arena)
    assert step.image_rows_I is not None
    assert step.image_features_IH is not None
    assert step.image_rows_I.tolist() == [0, 1]
    assert step.image_features_IH[:, 0].tolist() == [2, 3]


def test_without_a_picture_nothing_is_replaced() -> None:
    arena: Any = Arena()
    segment = Segment(0, 0, 3, [7, 8], [10, 20, 30, 11, 21, 31], samples=True)
    step = build_step([segment], admit(3), LAYOUT, CPU, arena)
    assert step.image_rows_I is None
    assert step.image_features_IH is None
