"""`KVLayout` against sets of blocks that are filled position by position."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from caravan.kv_layout import KVLayout, chunk_start

LAYOUTS = st.builds(
    KVLayout,
    block_len=st.integers(1, 7),
    chunk_len=st.integers(1, 20),
    full_slices=st.integers(0, 3),
    chunked_slices=st.integers(1, 3),
    slice_layers=st.just(1),
    page_bytes=st.just(1),
)
LENGTHS = st.integers(0, 70)


def pages_of(layout: KVLayout, positions: range) -> tuple[int, int]:
    """Full and chunked pages of positions [0, stop), the chunked ones of the last chunk only."""
    full = {position // layout.block_len for position in positions}
    chunk = (positions.stop - 1) // layout.chunk_len
    chunked = {
        position % layout.chunk_len // layout.block_len
        for position in positions
        if position // layout.chunk_len == chunk
    }
    return len(full) * layout.full_slices, len(chunked) * layout.chunked_slices


@given(LAYOUTS, LENGTHS)
def test_pages_held_are_those_of_all_blocks_and_of_the_current_chunks(
    layout: KVLayout, length: int
) -> None:
    assert layout.pages_held(length) == sum(pages_of(layout, range(length)))


@given(LAYOUTS, LENGTHS)
def test_pages_needed_covers_every_length_on_the_way(layout: KVLayout, length: int) -> None:
    held = [layout.pages_held(way) for way in range(length + 1)]
    assert max(held) <= layout.pages_needed(length) <= max(held) + layout.full_slices * length


@given(LAYOUTS, LENGTHS, st.integers(1, 20))
def test_new_pages_are_what_a_segment_adds(layout: KVLayout, start: int, length: int) -> None:
    length = min(length, layout.chunk_len - start % layout.chunk_len)
    full, chunked = pages_of(layout, range(start + length))
    full_before, chunked_before = pages_of(layout, range(start))
    if start == chunk_start(start, layout.chunk_len):
        chunked_before = 0
    assert layout.new_pages(start, length) == (full - full_before, chunked - chunked_before)


@given(LAYOUTS, LENGTHS)
def test_open_slots_are_the_tokens_that_need_no_page(layout: KVLayout, length: int) -> None:
    every = KVLayout(
        block_len=layout.block_len,
        chunk_len=layout.chunk_len,
        full_slices=1,
        chunked_slices=1,
        slice_layers=1,
        page_bytes=1,
    )
    in_chunk = layout.chunk_len - length % layout.chunk_len
    free = [n for n in range(1, in_chunk + 1) if every.new_pages(length, n) == (0, 0)]
    assert layout.open_slots(length) == len(free)


@given(LAYOUTS, st.integers(0, 100), LENGTHS)
def test_the_longest_context_fits_and_one_more_token_does_not(
    layout: KVLayout, num_pages: int, limit: int
) -> None:
    longest = layout.longest_context(num_pages, limit)
    assert longest <= limit
    assert layout.pages_needed(longest) <= num_pages
    assert longest == limit or layout.pages_needed(longest + 1) > num_pages
