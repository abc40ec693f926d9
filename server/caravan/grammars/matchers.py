"""Grammars compiled and followed, in the engine's process."""

from __future__ import annotations

import hashlib
import os
import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from llguidance import LLExecutor, LLMatcher, LLTokenizer
from numpy.typing import NDArray

from caravan.grammars.errors import GrammarError, explain
from caravan.grammars.limits import parser_limits

# Copies of a matcher share what its lexer has learned: that makes them fast, and grows. They share
# its failures too.
_MAX_PROTOTYPES = 32
_MAX_COPIES = 256
_MAX_THREADS = 4
_CLOSE_S = 5.0


@dataclass(slots=True)
class _Prototype:
    """A compiled grammar, to be copied."""

    matcher: LLMatcher
    num_copies: int = 0
    is_spoiled: bool = False  # a copy has failed


class Matcher:
    """Follows one output. After a failure it allows nothing."""

    def __init__(self, prototype: _Prototype) -> None:
        self.failed: str | None = None  # why, for the client
        self.inner = prototype.matcher.deep_copy()
        self._prototype = prototype

    def mask_into(self, row_W: NDArray[np.int32]) -> None:
        """Writes which tokens may come next: token i is bit i % 32 of word i // 32.

        Where the output may end, end tokens are among them. Zeros after a failure.
        """
        fill_masks([self], row_W[None])

    def accept(self, token: int) -> bool:
        """Takes in the token that was drawn. False, from then on: it was not allowed."""
        if self.failed is None:
            self.inner.consume_token(token)
            self.settle()
        return self.failed is None

    def settle(self) -> None:
        """Notes a failure, in which llguidance would allow the output to end."""
        if self.failed is None and self.inner.is_error():
            self.failed = explain(self.inner.get_error()).reason
            self._prototype.is_spoiled = True


def fill_masks(
    matchers: Sequence[Matcher], out_RW: NDArray[np.int32], *, num_threads: int | None = None
) -> None:
    """`Matcher.mask_into` for a row each; `failed` tells which have failed.

    A mask takes some 0.1 ms. Threads pay where there are rows and cores enough: not on two.
    """
    assert out_RW.dtype == np.int32, out_RW.dtype
    assert out_RW.flags.c_contiguous, out_RW.strides
    assert len(matchers) == len(out_RW), (len(matchers), out_RW.shape)
    num_bytes = out_RW.shape[1] * out_RW.itemsize
    rows = [(matcher.inner, row) for row, matcher in enumerate(matchers) if not matcher.failed]
    threads = _default_threads() if num_threads is None else num_threads
    if threads > 1 and len(rows) > threads:
        executor = _executor(threads)
        executor.unsafe_compute_mask_ptr(rows, out_RW.ctypes.data, num_bytes, len(out_RW))
    else:
        for inner, row in rows:
            inner.unsafe_compute_mask_ptr(out_RW.ctypes.data + row * num_bytes, num_bytes)
    for row, matcher in enumerate(matchers):
        matcher.settle()
        if matcher.failed:
            out_RW[row] = 0


@lru_cache(maxsize=1)
def _executor(num_threads: int) -> LLExecutor:
    return LLExecutor(num_threads)


def _default_threads() -> int:
    return min(_MAX_THREADS, (os.cpu_count() or 1) // 2)


class Compiler:
    """Compiles grammars in a thread of its own, one at a time, while the engine steps.

    `make_tokenizer` is called in that thread, when the first grammar comes. If it raises, so does
    `done`.
    """

    def __init__(self, make_tokenizer: Callable[[], LLTokenizer]) -> None:
        self._make_tokenizer = make_tokenizer
        self._tokenizer: LLTokenizer | None = None
        self._limits = parser_limits()
        self._prototypes: OrderedDict[bytes, _Prototype] = OrderedDict()  # the thread's
        self._changed = threading.Condition()  # guards what follows
        self._orders: deque[tuple[int, str]] = deque()
        self._results: list[tuple[int, Matcher | GrammarError]] = []
        self._pending = 0
        self._bug: Exception | None = None
        self._is_closed = False
        self._thread: threading.Thread | None = None

    @property
    def pending(self) -> int:
        """How many grammars were started that `done` has not given yet."""
        with self._changed:
            return self._pending

    def start(self, key: int, grammar: str) -> None:
        """Compiles a grammar in its turn; `done` will give it under the key."""
        with self._changed:
            assert not self._is_closed
            self._orders.append((key, grammar))
            self._pending += 1
            self._changed.notify_all()
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="grammars", daemon=True)
            self._thread.start()

    def done(self) -> list[tuple[int, Matcher | GrammarError]]:
        """What has been compiled since the last time."""
        with self._changed:
            if self._bug is not None:
                raise self._bug
            results, self._results = self._results, []
            self._pending -= len(results)
        return results

    def wait(self, timeout_s: float) -> None:
        """Returns as soon as `done` has something to give, or when the time is over."""
        with self._changed:
            self._changed.wait_for(lambda: self._results or self._bug, timeout_s)

    def close(self) -> None:
        """Ends the thread behind the grammar that it is at; the others are dropped."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join(_CLOSE_S)

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._orders or self._is_closed)
                if self._is_closed:
                    return
                key, grammar = self._orders.popleft()
            try:
                result = self._result(grammar)
            except Exception as error:  # noqa: BLE001 - the engine's thread must hear of any bug
                with self._changed:
                    self._bug = error
                    self._changed.notify_all()
                return
            with self._changed:
                self._results.append((key, result))
                self._changed.notify_all()

    def _result(self, grammar: str) -> Matcher | GrammarError:
        digest = hashlib.blake2b(grammar.encode(), digest_size=32).digest()
        prototype = self._prototypes.pop(digest, None)
        if prototype is None or prototype.is_spoiled or prototype.num_copies == _MAX_COPIES:
            prototype = _Prototype(self._compiled(grammar))
            if prototype.matcher.is_error():
                return explain(prototype.matcher.get_error())
        self._prototypes[digest] = prototype
        if len(self._prototypes) > _MAX_PROTOTYPES:
            self._prototypes.popitem(last=False)
        prototype.num_copies += 1
        return Matcher(prototype)

    def _compiled(self, grammar: str) -> LLMatcher:
        if self._tokenizer is None:
            self._tokenizer = self._make_tokenizer()
        return LLMatcher(self._tokenizer, grammar, log_level=0, limits=self._limits)
