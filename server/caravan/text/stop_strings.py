"""Finds stop strings in text that comes in pieces, in one pass over its characters."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from functools import lru_cache


class _Automaton:
    """An Aho-Corasick automaton of some stop strings.

    A state is the longest end of a text that begins a stop string, so the state's depth is exactly
    how much of the text has to be held back.
    """

    def __init__(self, stop_strings: tuple[str, ...]) -> None:
        self.next: list[dict[str, int]] = [{}]  # by state: character to state one deeper
        self.depth = [0]
        self.match: list[str | None] = [None]  # the longest stop string that ends in a state
        self.fallback = [0]  # the state of the longest shorter end of the text
        for stop_string in stop_strings:
            assert stop_string, "an empty stop string would match everywhere"
            self._add(stop_string)
        self._link()

    def step(self, state: int, character: str) -> int:
        """The state after one more character."""
        while state and character not in self.next[state]:
            state = self.fallback[state]
        return self.next[state].get(character, 0)

    def _add(self, stop_string: str) -> None:
        state = 0
        for character in stop_string:
            if character not in self.next[state]:
                self.next[state][character] = len(self.next)
                self.next.append({})
                self.depth.append(self.depth[state] + 1)
                self.match.append(None)
                self.fallback.append(0)
            state = self.next[state][character]
        self.match[state] = stop_string

    def _link(self) -> None:
        """Sets the fallbacks in order of depth: a state's is found through its parent's."""
        queue = deque(self.next[0].values())
        while queue:
            state = queue.popleft()
            for character, child in self.next[state].items():
                fallback = self.step(self.fallback[state], character)
                self.fallback[child] = fallback
                self.match[child] = self.match[child] or self.match[fallback]
                queue.append(child)


@lru_cache(maxsize=64)  # the choices of a request share one, and so do an application's requests
def _automaton(stop_strings: tuple[str, ...]) -> _Automaton:
    return _Automaton(stop_strings)


class StopMatcher:
    """Searches one text. The stop string that is complete first wins, of several the longest."""

    def __init__(self, stop_strings: Iterable[str]) -> None:
        self._automaton = _automaton(tuple(stop_strings))
        self._state = 0

    @property
    def held(self) -> int:
        """How many of the last characters could become a stop string."""
        return self._automaton.depth[self._state]

    def find(self, text: str) -> tuple[int, str] | None:
        """Goes on with `text`: where in it the first stop string ends, and which one it is."""
        step, matches, state = self._automaton.step, self._automaton.match, self._state
        for index, character in enumerate(text):
            state = step(state, character)
            if match := matches[state]:
                self._state = state
                return index + 1, match
        self._state = state
        return None
