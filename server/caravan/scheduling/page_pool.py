"""A fixed set of page ids: allocate, free, count.

    state     meaning
    free      in the pool
    cached    nobody's, but its keys and values may serve a later request: none as yet
    owned     in the tables of one request, or of several that share it

Every page is in one state: free + cached + owned == all.
"""

from __future__ import annotations

from collections import Counter


class PagePool:
    """The page ids 0 to `num_pages` - 1; those freed last are allocated first."""

    __slots__ = ("_free", "_owned", "_sharers", "num_pages")

    def __init__(self, num_pages: int) -> None:
        self.num_pages = num_pages
        self._free = list(range(num_pages - 1, -1, -1))
        self._owned: set[int] = set()
        self._sharers: dict[int, int] = {}  # owners of a page beyond the first, where there are any

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

    def share(self, pages: list[int]) -> None:
        """Adds an owner to each of `pages`, which are allocated."""
        assert self._owned.issuperset(pages), pages
        for page in pages:
            self._sharers[page] = self._sharers.get(page, 0) + 1

    def free(self, pages: list[int]) -> None:
        """Takes one owner from each of `pages`; those without any are free. None is named twice."""
        if self._sharers:
            pages = [page for page in pages if not self._unshare(page)]
        left = self.num_owned - len(pages)
        self._owned.difference_update(pages)
        assert self.num_owned == left, ("freed twice or never allocated", pages)
        self._free.extend(pages)

    def check_invariants(self, tables: list[int]) -> None:
        """Asserts that `tables`, all requests' pages, and the free pages are all pages.

        A page is as often in the tables as it has owners.
        """
        assert self.num_free + self.num_cached + self.num_owned == self.num_pages, self
        owners = dict.fromkeys(self._owned, 1)
        for page, sharers in self._sharers.items():
            owners[page] += sharers
        assert owners == Counter(tables), (owners, tables)
        assert self._owned.isdisjoint(self._free), self._owned.intersection(self._free)

    def _unshare(self, page: int) -> bool:
        """Whether the page has an owner left when one of them gives it back."""
        sharers = self._sharers.get(page)
        if sharers is None:
            return False
        if sharers == 1:
            del self._sharers[page]
        else:
            self._sharers[page] = sharers - 1
        return True

    def __repr__(self) -> str:
        return (
            f"PagePool(num_pages={self.num_pages}, free={self.num_free}, "
            f"cached={self.num_cached}, owned={self.num_owned})"
        )
