"""Tokens to text while they arrive: whole characters only, and no stop strings.

Text leaves in whole tokens: after every `push` the text so far is the text of the first
`num_released` tokens, so log-probabilities can be streamed beside it. A token waits

- while its last character is incomplete, together with the tokens that complete it;
- while its text, or text before it, could become a stop string.

A stop string is cut off together with what follows it, inside a token if need be; or it stays,
and the text ends with it.
"""

from __future__ import annotations

import codecs
from collections import deque
from collections.abc import Collection, Iterable, Sequence
from functools import partial

from caravan.text.stop_strings import StopMatcher
from caravan.text.tokenizer import Tokenizer


class Detokenizer:
    """Detokenises one completion.

    However its tokens are spread over calls of `push`, the text is the same: that of
    `Tokenizer.decode` with the names of those special tokens that are `shown`, up to the beginning
    of the stop string that is complete first (of several that end with the same character, the
    longest); with `include_stop`, up to its end. The text of the first `min_tokens` tokens is not
    searched; a character belongs to the token that completes it.

    A stop string must not be empty. Time is linear in the text, whatever the stop strings are;
    memory is some 300 bytes for each of their characters, so callers bound their length.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        stop_strings: Iterable[str] = (),
        *,
        min_tokens: int = 0,
        shown: Collection[int] = frozenset(),
        include_stop: bool = False,
    ) -> None:
        self.stopped: str | None = None  # the stop string that was found
        self.num_tokens = 0  # tokens read, up to the one that completed the stop string
        self.num_released = 0  # tokens whose text is out; a stop string may have cut the last
        stop_strings = tuple(stop_strings)
        self._searches = bool(stop_strings)
        self._matcher = StopMatcher(stop_strings)
        self._min_tokens = min_tokens
        self._bytes = (
            partial(_bytes, tokenizer, frozenset(shown)) if shown else tokenizer.text_bytes
        )
        self._include_stop = include_stop
        self._incomplete = b""  # the beginning of a character
        # A unit is the text of neighbouring tokens that are whole characters only together, and
        # how many they are: mostly one.
        self._held: deque[tuple[str, int]] = deque()
        self._open: list[str] = []  # text of the unit that is being read
        self._open_tokens = 0
        self._num_held = 0  # characters, those of the open unit included

    def push(self, token_ids: Sequence[int]) -> str:
        """Reads tokens and returns the text that is final now; after a stop string, none.

        Raises UnknownTokenId.
        """
        if not self._searches and not self._incomplete:
            of = self._bytes
            data = of(token_ids[0]) if len(token_ids) == 1 else b"".join(map(of, token_ids))
            text, num_bytes = codecs.utf_8_decode(data, "replace", False)
            if num_bytes == len(data):  # whole characters, as most tokens are: nothing is held
                self.num_tokens += len(token_ids)
                self.num_released += len(token_ids)
                return text
        for token_id in token_ids:
            if self.stopped is not None:
                break
            self._read(token_id)
        return self._release(self._matcher.held)

    def finish(self) -> str:
        """The rest of the text, when no more tokens come."""
        if self._incomplete:
            self._break_character()
        return self._release(0)

    def _read(self, token_id: int) -> None:
        data = self._bytes(token_id)
        self.num_tokens += 1
        if self._incomplete and data and not 0x80 <= data[0] < 0xC0:
            self._break_character()  # UTF-8 goes on with a byte from that range only
            if self.stopped is not None:
                return
        data = self._incomplete + data
        text, num_bytes = codecs.utf_8_decode(data, "replace", False)
        self._incomplete = data[num_bytes:]
        self._open_tokens += 1
        self._append(text)
        if not self._incomplete:
            self._close()

    def _break_character(self) -> None:
        broken = self._incomplete.decode(errors="replace")
        self._incomplete = b""
        self._append(broken)
        self._close()

    def _append(self, text: str) -> None:
        """Puts text into the open unit, up to the end of a stop string."""
        if self.num_tokens > self._min_tokens and (hit := self._matcher.find(text)):
            end, self.stopped = hit
            text = text[:end]
            self._incomplete = b""
        self._open.append(text)
        self._num_held += len(text)

    def _close(self) -> None:
        self._held.append(("".join(self._open), self._open_tokens))
        self._open.clear()
        self._open_tokens = 0

    def _release(self, num_uncertain: int) -> str:
        """Takes out the units before the last `num_uncertain` characters, or what a stop leaves."""
        if self.stopped is not None:
            num_uncertain = 0 if self._include_stop else len(self.stopped)
        room = self._num_held - num_uncertain
        released = []
        while self._held and len(self._held[0][0]) <= room:
            text, num_tokens = self._held.popleft()
            released.append(text)
            room -= len(text)
            self.num_released += num_tokens
        if self.stopped is not None:
            if self._held and room > 0:
                text, num_tokens = self._held[0]
                released.append(text[:room])
                self.num_released += num_tokens
            self._held.clear()
        text = "".join(released)
        self._num_held -= len(text)
        return text


def _bytes(tokenizer: Tokenizer, shown: frozenset[int], token_id: int) -> bytes:
    """What a token adds to the text; a special one that is `shown`, its name."""
    return tokenizer.token_bytes(token_id) if token_id in shown else tokenizer.text_bytes(token_id)
