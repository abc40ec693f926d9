"""Requests whose output is held to a grammar: compiled before they are scheduled, masked at draws.

A request waits here, not in the scheduler, until its grammar is compiled in the background. From
then on its matcher takes in every token that is drawn, and says which tokens the next draw may
give. A grammar that fails, whenever it does, ends its own request and no other.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from caravan.grammars.errors import GrammarError
from caravan.grammars.matchers import Compiler, Matcher, fill_masks
from caravan.messages import Delta, Generate, StepPlan, TokenMasks

FAILED = "The grammar of this request became too complex while it was being followed."


class Constraints:
    """All requests with a grammar."""

    def __init__(self, compiler: Compiler | None, vocab_size: int) -> None:
        """Without a compiler no request may have a grammar."""
        self._compiler = compiler
        self._words = -(-vocab_size // 32)
        self._compiling: dict[int, Generate] = {}  # by rid
        self._unwanted: set[int] = set()  # of those that compile
        self._matchers: dict[int, Matcher] = {}  # by rid

    @property
    def compiling(self) -> bool:
        """Whether a request waits for its grammar."""
        return bool(self._compiling)

    def add(self, request: Generate) -> None:
        """Starts to compile a request's grammar."""
        assert request.grammar is not None, request
        assert self._compiler is not None, "this engine knows no grammars"
        self._compiling[request.rid] = request
        self._compiler.start(request.rid, request.grammar)

    def compiled(self) -> tuple[list[Generate], list[tuple[Generate, str]]]:
        """The requests that can be scheduled now; those that cannot be served, and why."""
        if not self._compiling or self._compiler is None:
            return [], []
        ready, failed = [], []
        for rid, result in self._compiler.done():
            request = self._compiling.pop(rid)
            if rid in self._unwanted:
                self._unwanted.remove(rid)
                failed.append((request, "nobody waits for it any more"))
            elif isinstance(result, GrammarError):
                failed.append((request, result.reason))
            else:
                self._matchers[rid] = result
                ready.append(request)
        return ready, failed

    def forget(self, rid: int) -> None:
        """A request has ended or left."""
        self._matchers.pop(rid, None)
        if rid in self._compiling:
            self._unwanted.add(rid)

    def concern(self, plan: StepPlan) -> bool:
        """Whether the plan draws a token that a grammar decides on."""
        return bool(self._matchers) and any(
            segment.samples and segment.rid in self._matchers for segment in plan.segments
        )

    def masks(self, plan: StepPlan) -> TokenMasks:
        """What the draws of a plan may give, after every token before them was taken in.

        A request whose matcher fails has no mask: `failed` tells, and its draw must not count.
        """
        rids = [s.rid for s in plan.segments if s.samples and s.rid in self._matchers]
        words_RW = np.zeros((len(rids), self._words), np.int32)
        fill_masks([self._matchers[rid] for rid in rids], words_RW)
        valid = [not self._matchers[rid].failed for rid in rids]
        kept = [rid for rid, is_valid in zip(rids, valid, strict=True) if is_valid]
        return TokenMasks(kept, words_RW[valid].tobytes())

    def take_in(self, deltas: Sequence[Delta]) -> None:
        """Tokens that were drawn."""
        for delta in deltas:
            matcher = self._matchers.get(delta.rid)
            if matcher is None:
                continue
            if delta.finish:
                del self._matchers[delta.rid]
                continue
            for token in delta.tokens:
                matcher.accept(token)

    def failed(self) -> list[int]:
        """Requests that can no longer be held to their grammar."""
        return [rid for rid, matcher in self._matchers.items() if matcher.failed]
