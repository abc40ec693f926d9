"""Tells, character by character, whether a text can still become one of a few."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Mapping
from typing import Generic, TypeVar

T = TypeVar("T")


class Spellings(Generic[T]):
    """Texts, and what each of them stands for."""

    def __init__(self, table: Mapping[str, T]) -> None:
        self.table = dict(table)
        self.ordered = sorted(table)

    def __bool__(self) -> bool:
        return bool(self.table)


class Spelled(Generic[T]):
    """The beginning of at least one of the spellings.

    >>> word = Spelled(Spellings({"in": 1, "is": 2, "island": 3}))
    >>> [word.advance(character) for character in "isle"], word.value
    ([True, True, True, False], None)
    """

    def __init__(self, spellings: Spellings[T]) -> None:
        self._spellings = spellings
        self._length = 0
        self._first, self._end = (
            0,
            len(spellings.ordered),
        )  # those that begin with it, shortest first

    def advance(self, character: str) -> bool:
        """Appends a character, if there is a spelling that goes on so."""
        bounds = self._first, self._end
        ordered, index = self._spellings.ordered, self._length

        def at_index(spelling: str) -> str:
            return spelling[index : index + 1]

        first = bisect_left(ordered, character, *bounds, key=at_index)
        end = bisect_right(ordered, character, *bounds, key=at_index)
        if first == end:
            return False
        self._first, self._end = first, end
        self._length += 1
        return True

    @property
    def complete(self) -> bool:
        """Whether it is one of the spellings."""
        ordered = self._spellings.ordered
        return self._first < self._end and len(ordered[self._first]) == self._length

    @property
    def value(self) -> T | None:
        """What it stands for; None: it is not complete."""
        if not self.complete:
            return None
        return self._spellings.table[self._spellings.ordered[self._first]]
