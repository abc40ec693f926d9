"""A plan's segments become tables; checked slot by slot on a cache with three chunked slices."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from caravan.kv_layout import KVLayout
from caravan.messages import Admission, Sampling, Segment, SegmentTile
from caravan.model.step import StepInput
from caravan.worker.batch import StepMemory, lay_out, no_rows, pad_decode, step_input
from caravan.worker.requests import Requests
from caravan.worker.staging import Staging, staged_bytes
from caravan.worker.table_store import Extent, TableStore
from caravan_kernels import PagedSegments

CPU = torch.device("cpu")
SEATS = 6
# blocks of 2 tokens, chunks of 5: the last block of a chunk is half full
LAYOUT = KVLayout(
    block_len=2, chunk_len=5, full_slices=1, chunked_slices=3, slice_layers=1, page_bytes=1
)


class Arena:
    """Three slots of tiles of four patches; patch i of slot n is [10 * n + i]."""

    tile_tokens = 4
    features_PH = torch.tensor([[10.0 * slot + i] for slot in range(3) for i in range(4)])


def admit(*lengths: int, layout: KVLayout = LAYOUT) -> Requests:
    """Requests 0, 1, ...; token i of request r is 100 r + i."""
    requests = Requests(layout, 100, SEATS, CPU)
    for rid, length in enumerate(lengths):
        tokens = [100 * rid + i for i in range(length)]
        requests.admit(Admission(rid, tokens, length, Sampling(max_tokens=1)))
    return requests


def memory(requests: Requests, layout: KVLayout = LAYOUT) -> StepMemory:
    tiles: Any = Arena()
    last = torch.arange(1000, 1000 + SEATS + 1)
    return StepMemory(layout, 1, requests, last, tiles)


def build(segments: list[Segment], requests: Requests, layout: KVLayout = LAYOUT) -> StepInput:
    step = lay_out(segments, requests, layout, Arena.tile_tokens)
    staging = Staging(CPU)
    requests.send_tables(staging)
    return step_input(staging.send(step.arrays), step.num_decode, memory(requests, layout))


def pages(kind: PagedSegments | None, segment: int) -> list[list[int]]:
    """The table of a segment, slice by slice."""
    assert kind is not None
    start = int(kind.page_start[segment])
    blocks = -(-int(kind.context_len[segment]) // LAYOUT.block_len)
    return [[int(page) for page in row] for row in kind.pages_LN[:, start : start + blocks]]


def test_one_segment() -> None:
    chunked = [10, 20, 30, 11, 21, 31]  # block by block, in a block slice by slice
    step = build([Segment(0, 0, 3, [7, 8], chunked, samples=True)], admit(3))
    assert step.token_ids_T.tolist() == [0, 1, 2]
    assert step.positions_T.tolist() == [0, 1, 2]
    assert step.sample_rows_S is not None
    assert step.sample_rows_S.tolist() == [2]
    assert pages(step.full, 0) == [[7, 8]]
    assert pages(step.chunked, 0) == [[10, 11], [20, 21], [30, 31]]
    assert step.full is not None
    assert step.chunked is not None
    assert step.full.slots_LT.tolist() == [[14, 15, 16]]
    assert step.chunked.slots_LT.tolist() == [[20, 21, 22], [40, 41, 42], [60, 61, 62]]
    assert step.chunked.context_len.tolist() == [3]
    assert step.full.num_decode == 0


def two_chunks() -> tuple[StepInput, Requests]:
    """Tokens [3, 6) of a request: [3, 5) ends its chunk, [5, 6) starts the next.

    The plan puts the segment of one token first, though its position is the later one.
    """
    requests = admit(6)
    build([Segment(0, 0, 3, [7, 8], [10, 20, 30, 11, 21, 31], False)], requests)
    later = Segment(0, 5, 1, [], [13, 23, 33], samples=True)
    earlier = Segment(0, 3, 2, [9], [12, 22, 32], samples=False)
    return build([later, earlier], requests), requests


def test_segments_on_both_sides_of_a_chunk_boundary_in_one_step() -> None:
    step, _ = two_chunks()
    assert step.chunked is not None
    assert step.full is not None
    assert step.sample_rows_S is not None
    assert step.positions_T.tolist() == [5, 3, 4]
    assert step.sample_rows_S.tolist() == [0]
    assert step.chunked.num_decode == 1
    assert step.chunked.context_len.tolist() == [1, 5]
    assert [pages(step.chunked, s)[0] for s in (0, 1)] == [[13], [10, 11, 12]]
    assert step.chunked.slots_LT[1].tolist() == [46, 43, 44]
    assert step.full.context_len.tolist() == [6, 5]
    assert [pages(step.full, s) for s in (0, 1)] == [[[7, 8, 9]], [[7, 8, 9]]]
    assert step.full.slots_LT.tolist() == [[19, 17, 18]]


def test_a_later_step_reads_the_new_chunk_only() -> None:
    _, requests = two_chunks()
    step = build([Segment(0, 6, 1, [14], [], samples=True)], requests)
    assert step.chunked is not None
    assert step.chunked.context_len.tolist() == [2]
    assert pages(step.chunked, 0) == [[13], [23], [33]]
    assert pages(step.full, 0) == [[7, 8, 9, 14]]
    assert step.sample_rows_S is None


def test_a_token_that_was_drawn_is_the_last_of_its_seat() -> None:
    requests = admit(2, 3)
    first = Segment(0, 0, 2, [1], [4, 5, 6], True)
    build([first, Segment(1, 0, 2, [2], [4, 5, 6], False)], requests)
    step = build(
        [Segment(1, 2, 1, [3], [4, 5, 6], True), Segment(0, 2, 1, [7], [8, 9, 10], True)],
        requests,
    )
    seat = requests[0].seat
    assert step.token_ids_T.tolist() == [102, 1000 + seat]


def test_seats_are_given_again() -> None:
    requests = admit(1, 1, 1)
    assert {requests[rid].seat for rid in range(3)} == {0, 1, 2}
    assert requests.release(1) == 1
    assert requests.admit(Admission(9, [1], 1, Sampling(max_tokens=1))).seat == 1


def test_models_with_one_kind_of_layer() -> None:
    layout = KVLayout(
        block_len=2, chunk_len=5, full_slices=0, chunked_slices=1, slice_layers=4, page_bytes=1
    )
    requests = admit(2, layout=layout)
    step = build([Segment(0, 0, 2, [], [3], samples=True)], requests, layout)
    assert step.full is None
    assert step.chunked is not None


def test_padding_reads_and_writes_nothing() -> None:
    requests = admit(2, 3)
    build(
        [Segment(0, 0, 2, [1], [2, 3, 4], True), Segment(1, 0, 3, [5], [6, 7, 8], True)], requests
    )
    plan = [Segment(0, 2, 1, [9], [10, 11, 12], True), Segment(1, 3, 1, [13], [14, 15, 16], True)]
    step = pad_decode(lay_out(plan, requests, LAYOUT), 5, spare_seat=SEATS)
    assert step.decodes_only
    given = step_input(Staging(CPU).send(step.arrays), step.num_decode, memory(requests))
    for kind in (given.full, given.chunked):
        assert kind is not None
        assert kind.context_len[:2].min() > 0
        assert kind.context_len[2:].tolist() == [0, 0, 0]
        assert kind.slots_LT[:, :2].min() >= 0
        assert kind.slots_LT[:, 2:].unique().tolist() == [-1]
        assert kind.query_indptr.tolist() == [*range(6)]
    assert step.arrays["seats"].tolist() == [0, 1, SEATS, SEATS, SEATS]


def test_padding_alone_has_the_types_of_a_step() -> None:
    """So both are sent to the same addresses."""
    requests = admit(1)
    step = lay_out([Segment(0, 0, 1, [1], [2, 3, 4], True)], requests, LAYOUT)
    real, none = (pad_decode(each, 3, spare_seat=SEATS).arrays for each in (step, no_rows()))
    assert {name: (a.dtype, a.shape) for name, a in real.items()} == {
        name: (a.dtype, a.shape) for name, a in none.items()
    }
    assert list(real) == list(none)


@pytest.mark.parametrize(
    ("segment", "decodes"),
    [
        (Segment(0, 0, 1, [1], [2, 3, 4], samples=True), True),
        (Segment(0, 0, 1, [1], [2, 3, 4], samples=False), False),
        (Segment(0, 0, 2, [1], [2, 3, 4], samples=True), False),
        (Segment(0, 0, 1, [1], [2, 3, 4], True, [SegmentTile(0, 0)]), False),
    ],
)
def test_what_a_graph_of_decode_steps_takes(segment: Segment, decodes: bool) -> None:
    step = lay_out([segment], admit(2), LAYOUT, Arena.tile_tokens)
    assert step.decodes_only == decodes


def test_patches_stand_in_the_rows_of_their_segment() -> None:
    requests = admit(3, 12)
    other = Segment(0, 0, 3, [1, 2], [3, 4, 5, 6, 7, 8], samples=True)
    # a tile at [1, 5) in the chunk [0, 5), and the first two patches of one at [6, 10)
    tiles = [SegmentTile(1, slot=2), SegmentTile(6, slot=0)]
    first = Segment(1, 0, 5, [11, 12, 13], [*range(20, 29)], False, tiles[:1])
    second = Segment(1, 5, 3, [14], [*range(29, 35)], False, tiles[1:])
    step = build([other, first, second], requests)
    assert step.image_rows_I is not None
    assert step.image_features_IH is not None
    assert step.image_rows_I.tolist() == [4, 5, 6, 7, 9, 10]
    assert step.image_features_IH[:, 0].tolist() == [20, 21, 22, 23, 0, 1]
    rest = Segment(1, 8, 2, [15], [35, 36, 37], False, tiles[1:])
    step = build([rest], requests)
    assert step.image_rows_I is not None
    assert step.image_features_IH is not None
    assert step.image_rows_I.tolist() == [0, 1]
    assert step.image_features_IH[:, 0].tolist() == [2, 3]


def test_without_a_picture_nothing_is_replaced() -> None:
    step = build([Segment(0, 0, 3, [7, 8], [10, 20, 30, 11, 21, 31], samples=True)], admit(3))
    assert step.image_rows_I is None
    assert step.image_features_IH is None


class Mirror(TableStore):
    """A store whose device tensor gets nothing but what is sent."""

    def __init__(self, slices: int, most_blocks: int, most_tables: int) -> None:
        super().__init__(slices, most_blocks, most_tables, CPU)
        self.pages_LN = self.pages_LN.clone()
        self._on_host = False
        self.whole = 0  # how often everything was sent
        self.columns = 0

    def send_changes(self, staging: Staging) -> None:
        before = self.pages_LN.clone()
        moved = self._moved
        super().send_changes(staging)
        self.whole += moved
        self.columns += int((before != self.pages_LN).any(0).sum())


@pytest.mark.parametrize("seed", range(6))
def test_tables_survive_growing_moving_and_closing(seed: int) -> None:
    """Against lists, over hundreds of steps, with as many blocks and tables as were announced."""
    rng = random.Random(seed)
    slices, most_blocks, most_tables = rng.choice([1, 3]), rng.choice([5, 300]), rng.choice([1, 9])
    store, staging = Mirror(slices, most_blocks, most_tables), Staging(CPU)
    tables: dict[Extent, list[list[int]]] = {}
    for _ in range(400):
        read = list(tables.items())  # what the step reads even if it is closed in it
        for extent in list(tables):
            if rng.random() < 0.05:
                store.close(extent)
                del tables[extent]
        while len(tables) < most_tables and rng.random() < 0.7:
            tables[store.open()] = []
        for extent, blocks in tables.items():
            room = most_blocks - sum(map(len, tables.values()))
            new = [
                [rng.randrange(1 << 20) for _ in range(slices)] for _ in range(rng.randint(0, room))
            ]
            if rng.random() < 0.3:
                store.append(extent, [page for block in new for page in block])
                blocks += new
        staged = [(extent.start, extent.length, extent) for extent, _ in read]
        store.send_changes(staging)
        for extent, blocks in [*tables.items(), *read]:
            columns = store.pages_LN[:, extent.start : extent.start + extent.length]
            assert columns.T.tolist() == blocks
        assert all(extent.start == start for start, _, extent in staged)
    assert store.whole > 0 or most_blocks > 5
    assert store.columns > 0


def test_what_is_sent_keeps_shape_type_and_address() -> None:
    arrays: dict[str, NDArray[Any]] = {
        "a": np.arange(7, dtype=np.int64).reshape(7, 1),
        "b": np.array([1.5], np.float32),
        "c": np.arange(6, dtype=np.int32).reshape(2, 3)[:, ::2],
        "d": np.empty(0, np.float64),
    }
    target = torch.zeros(staged_bytes(arrays) + 5, dtype=torch.uint8)
    first = Staging(CPU).send(arrays, into=target)
    for name, array in arrays.items():
        assert first[name].numpy().dtype == array.dtype
        assert first[name].tolist() == array.tolist()
    again = Staging(CPU).send({name: array + 1 for name, array in arrays.items()}, into=target)
    assert first["a"].tolist() == again["a"].tolist() == (arrays["a"] + 1).tolist()
