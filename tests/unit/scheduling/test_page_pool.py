from __future__ import annotations

import pytest

from caravan.scheduling.page_pool import PagePool


def test_every_page_is_allocated_once_before_any_is_reused() -> None:
    pool = PagePool(5)
    assert sorted(pool.allocate(2) + pool.allocate(3)) == [0, 1, 2, 3, 4]
    assert (pool.num_free, pool.num_cached, pool.num_owned) == (0, 0, 5)


def test_the_page_freed_last_is_allocated_first() -> None:
    pool = PagePool(5)
    pages = pool.allocate(4)
    pool.free([pages[1]])
    pool.free([pages[3]])
    assert pool.allocate(1) == [pages[3]]
    assert (pool.num_free, pool.num_owned) == (2, 3)


def test_nothing_can_be_allocated_and_freed() -> None:
    pool = PagePool(1)
    assert pool.allocate(0) == []
    pool.free([])
    assert (pool.num_free, pool.num_owned) == (1, 0)


def test_an_allocation_beyond_the_free_pages_takes_none() -> None:
    pool = PagePool(3)
    with pytest.raises(AssertionError, match="4, 3"):
        pool.allocate(4)
    assert pool.num_free == 3


@pytest.mark.parametrize("pages", [[7], [0, 0], [0, 2]], ids=["unknown", "twice", "not owned"])
def test_a_wrong_free_is_a_bug(pages: list[int]) -> None:
    pool = PagePool(3)
    assert pool.allocate(1) == [0]
    with pytest.raises(AssertionError, match="freed twice or never allocated"):
        pool.free(pages)


@pytest.mark.parametrize("tables", [[0], [0, 1, 1], [0, 2]], ids=["lost", "shared", "foreign"])
def test_the_invariant_finds_lost_shared_and_foreign_pages(tables: list[int]) -> None:
    pool = PagePool(3)
    pool.allocate(2)
    pool.check_invariants([1, 0])
    with pytest.raises(AssertionError):
        pool.check_invariants(tables)


def test_a_shared_page_is_free_when_its_last_owner_gives_it_back() -> None:
    pool = PagePool(3)
    pages = pool.allocate(2)
    pool.share(pages[:1])
    pool.share(pages[:1])
    pool.check_invariants([*pages, pages[0], pages[0]])
    pool.free(pages)
    pool.free(pages[:1])
    assert (pool.num_free, pool.num_owned) == (2, 1)
    pool.free(pages[:1])
    pool.check_invariants([])


def test_only_owned_pages_are_shared() -> None:
    pool = PagePool(3)
    with pytest.raises(AssertionError):
        pool.share([1])
