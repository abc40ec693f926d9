"""Finds stop strings in text that comes in pieces, in one pass over its characters.

An Aho-Corasick automaton: a state is the longest end of the text that begins a stop string, so the
state's depth is exactly how much text has to be held back.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable


class StopMatcher:
    """Searches one text. The stop string that is complete first wins, of several the longest."""

    def __init__(self, stop_strings: Iterable[str]) -> None:
        self._next: list[dict[str, int]] = [{}]  # by state: character to state one deeper
        self._depth = [0]
        self._match: list[str | None] = [None]  # the longest stop string that ends in a state
        self._fallback = [0]  # the state of the longest shorter end of the text
        self._state = 0
        for stop_string in stop_strings:
            assert stop_string, "an empty stop string would match everywhere"
            self._add(stop_string)
        self._link()

    @property
    def held(self) -> int:
        """How many of the last characters could become a stop string."""
        return self._depth[self._state]

    def find(self, text: str) -> tuple[int, str] | None:
        """Goes on with `text`: where in it the first stop string ends, and which one it is."""
        state = self._state
        for index, character in enumerate(text):
            while state and character not in self._next[state]:
                state = self._fallback[state]
            state = self._next[state].get(character, 0)
            if match := self._match[state]:
                self._state = state
                return index + 1, match
        self._state = state
        return None

    def _add(self, stop_string: str) -> None:
        state = 0
        for character in stop_string:
            if character not in self._next[state]:
                self._next[state][character] = len(self._next)
                self._next.append({})
                self._depth.append(self._depth[state] + 1)
                self._match.append(None)
                self._fallback.append(0)
            state = self._next[state][character]
        self._match[state] = stop_string

    def _link(self) -> None:
        """Sets the fallbacks in order of depth: a state's is found through its parent's."""
        queue = deque(self._next[0].values())
        while queue:
            state = queue.popleft()
            for character, child in self._next[state].items():
                fallback = self._fallback[state]
                while fallback and character not in self._next[fallback]:
                    fallback = self._fallback[fallback]
                fallback = self._next[fallback].get(character, 0)
                self._fallback[child] = fallback
                self._match[child] = self._match[child] or self._match[fallback]
                queue.append(child)
