"""Whether a grammar can be obeyed, found out before any token is generated."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict

from llguidance import LLMatcher, LLTokenizer

from caravan.grammars.errors import GrammarError, explain
from caravan.grammars.limits import MAX_GRAMMAR_BYTES, parser_limits

_MAX_VERDICTS = 4096  # of a few hundred bytes each: a digest, and a reason in our words
_MAX_COMPILING = 2  # at a time; each takes a core


class Checker:
    """Compiles grammars as the engine will. Safe to use from several threads."""

    def __init__(self, tokenizer: LLTokenizer) -> None:
        self._tokenizer = tokenizer
        self._limits = parser_limits()
        self._turns = threading.BoundedSemaphore(_MAX_COMPILING)
        self._lock = threading.Lock()
        self._verdicts: OrderedDict[bytes, str | None] = OrderedDict()  # by digest; why it is bad

    def check(self, grammar: str) -> None:
        """Raises GrammarError. Takes up to a second of a core; the answer is remembered."""
        digest = hashlib.blake2b(grammar.encode(), digest_size=32).digest()
        with self._lock:
            is_known = digest in self._verdicts
            reason = self._verdicts.get(digest)
        if not is_known:
            with self._turns:
                reason = self._reason(grammar)
        with self._lock:
            self._verdicts[digest] = reason
            self._verdicts.move_to_end(digest)
            if len(self._verdicts) > _MAX_VERDICTS:
                self._verdicts.popitem(last=False)
        if reason is not None:
            raise GrammarError(reason)

    def _reason(self, grammar: str) -> str | None:
        if len(grammar) > MAX_GRAMMAR_BYTES:
            return f"has more than {MAX_GRAMMAR_BYTES} bytes"
        matcher = LLMatcher(self._tokenizer, grammar, log_level=0, limits=self._limits)
        matcher.compute_bitmask()  # finds out that no output is possible, or that it costs too much
        return explain(matcher.get_error()).reason if matcher.is_error() else None
