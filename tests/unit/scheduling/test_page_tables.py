from __future__ import annotations

import pytest

from caravan.kv_layout import KVLayout
from caravan.scheduling.page_pool import PagePool
from caravan.scheduling.page_tables import PageTables

# full        blocks [0, 4) [4, 8) [8, 12) ..., one page each
# chunked     blocks [0, 4) [4, 6) | [6, 10) [10, 12) | ..., two pages each
LAYOUT = KVLayout(
    block_len=4, chunk_len=6, full_slices=1, chunked_slices=2, slice_layers=1, page_bytes=1
)


def tables_in(num_pages: int) -> tuple[PageTables, PagePool]:
    pool = PagePool(num_pages)
    return PageTables(LAYOUT, pool), pool


def test_pages_are_taken_only_where_a_block_begins() -> None:
    tables, _ = tables_in(20)
    taken = []
    for _ in range(12):
        full, chunked = tables.grow(1)
        taken.append((len(full), len(chunked)))
    assert taken[:6] == [(1, 2), (0, 0), (0, 0), (0, 0), (1, 2), (0, 0)]
    assert taken[6:] == [(0, 2), (0, 0), (1, 0), (0, 0), (0, 2), (0, 0)]


def test_room_ends_with_the_chunk() -> None:
    tables, _ = tables_in(20)
    assert tables.room(100) == 6
    tables.grow(4)
    assert tables.room(100) == 2
    tables.grow(2)
    assert tables.room(3) == 3


@pytest.mark.parametrize(("free", "room"), [(0, 0), (2, 0), (3, 4), (5, 4), (6, 6), (9, 6)])
def test_room_ends_with_the_free_pages(free: int, room: int) -> None:
    tables, _ = tables_in(free)
    assert tables.room(6) == room


def test_open_slots_have_room_without_free_pages() -> None:
    tables, pool = tables_in(3)
    tables.grow(1)
    assert pool.num_free == 0
    assert (tables.room(1), tables.room(3), tables.room(5)) == (1, 3, 3)


def test_an_ended_chunk_keeps_its_pages_until_the_step_is_planned() -> None:
    tables, pool = tables_in(20)
    tables.grow(6)
    assert tables.chunk_ended
    assert pool.num_owned == 2 + 4
    tables.grow(6)  # the next chunk in the same step
    assert pool.num_owned == 3 + 4 + 4
    tables.free_ended()
    assert not tables.chunk_ended
    assert pool.num_owned == 3
    assert len(tables.pages()) == 3


def test_clear_gives_back_everything_even_in_the_middle_of_a_step() -> None:
    tables, pool = tables_in(20)
    tables.grow(6)
    tables.grow(1)
    tables.clear()
    assert pool.num_owned == 0
    assert tables.num_tokens == 0
    for _ in range(2):
        assert [len(pages) for pages in tables.grow(1)] == [1, 2]
        assert [len(pages) for pages in tables.grow(2)] == [0, 0]
        tables.clear()
