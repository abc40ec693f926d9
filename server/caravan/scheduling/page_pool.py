"""A fixed set of page ids: allocate, free, count.

    state     meaning
    free      in the pool
    cached    nobody's, but its keys and values may serve a later request: none as yet
    owned     in exactly one request's tables

Every page is in one state: free + cached + owned == all.
"""

from __future__ import annotations


class PagePool:
    """The page ids 0 to `num_pages` - 1; those freed last are allocated first."""

    __slots__ = ("_free", "_owned", "num_pages")

    def __init__(self, num_pages: int) -> None:
        self.num_pages = num_pages
        self._free = list(range(num_pages - 1, -1, -1))
        self._owned: set[int] = set()

    @property
    def num_free(self) -> int:
        """Pages that can be allocated."""
        return len(self._free)

    @property
    def num_cached(self) -> int:
        """Pages kept for their contents: 0 without a prefix cache."""
        return 0

    @property
    def num_owned(self) -> int:
        """Pages allocated and not yet freed."""
        return len(self._owned)

    def allocate(self, count: int) -> list[int]:
        """Takes `count` pages; the caller has seen that so many are free."""
        assert 0 <= count <= len(self._free), (count, len(self._free))
        split = len(self._free) - count
        pages = self._free[split:]
        del self._free[split:]
        self._owned.update(pages)
        return pages

    def free(self, pages: list[int]) -> None:
        """Gives back `pages`, each allocated and named once."""
        left = self.num_owned - len(pages)
        self._owned.difference_update(pages)
        assert self.num_owned == left, ("freed twice or never allocated", pages)
        self._free.extend(pages)

    def check_invariants(self, tables: list[int]) -> None:
        """Asserts that `tables`, all requests' pages, and the free pages are all pages, once."""
        assert self.num_free + self.num_cached + self.num_owned == self.num_pages, self
        assert len(tables) == self.num_owned, (len(tables), self.num_owned)
        assert self._owned == set(tables), (self._owned, tables)
        assert self._owned.isdisjoint(self._free), self._owned.intersection(self._free)

    def __repr__(self) -> str:
        return (
            f"PagePool(num_pages={self.num_pages}, free={self.num_free}, "
            f"cached={self.num_cached}, owned={self.num_owned})"
        )
