"""The bound on what waits for its first token, and how long a refused request should wait.

Counted in the API process, so that a refusal costs the engine nothing. A prompt is in the queue
from `submit` until its first token or its end, whichever comes first.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence

from caravan.errors import Overloaded

MIN_RETRY_S = 1
MAX_RETRY_S = 120  # the OpenAI SDKs give up on a longer Retry-After
_MEMORY_S = 10.0  # the rate's time constant


class PromptQueue:
    """Prompts without a first token, the rate at which they are computed, and the bound."""

    def __init__(
        self, max_tokens: int, max_requests: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._max_tokens = max_tokens
        self._max_requests = max_requests
        self._clock = clock
        self.tokens = 0
        self.requests = 0
        self._observed_at = 0.0
        self._rate_tokens = 0.0  # both decay with _MEMORY_S; their quotient is the rate
        self._rate_seconds = 0.0

    def enter(self, lengths: Sequence[int]) -> None:
        """Takes all prompts of one call, or none. Whatever comes while the queue is empty enters.

        Raises Overloaded.
        """
        tokens, requests = sum(lengths), len(lengths)
        if self.requests:
            if self.tokens + tokens > self._max_tokens:
                self._refuse(
                    f"the queue holds {self.tokens} prompt tokens and this request adds {tokens}; "
                    f"the limit is {self._max_tokens} (--max-queued-tokens)",
                    self.tokens + tokens - self._max_tokens,
                )
            if self.requests + requests > self._max_requests:
                excess = self.requests + requests - self._max_requests
                self._refuse(
                    f"the queue holds {self.requests} requests and this call adds {requests}; "
                    f"the limit is {self._max_requests} (--max-queued-requests)",
                    excess * self.tokens / self.requests,
                )
        else:
            self._observed_at = self._clock()
        self.tokens += tokens
        self.requests += requests

    def leave(self, length: int) -> None:
        """A prompt got its first token, or nobody wants it any more."""
        self.tokens -= length
        self.requests -= 1
        assert self.tokens >= 0, self.tokens
        assert self.requests >= 0, self.requests

    def observe(self, prompt_tokens: int) -> None:
        """So many prompt tokens were computed since the last call, or since the queue was empty.

        Call it before `leave` for the prompts that these tokens finished.
        """
        if not self.requests:
            return
        now = self._clock()
        elapsed = now - self._observed_at
        self._observed_at = now
        decay = math.exp(-elapsed / _MEMORY_S)
        self._rate_tokens = self._rate_tokens * decay + prompt_tokens
        self._rate_seconds = self._rate_seconds * decay + elapsed

    def seconds_for(self, tokens: float) -> int:
        """Whole seconds until `tokens` of the queue are computed, within what clients obey.

        Before anything was measured: the least.
        """
        if not self._rate_seconds:
            return MIN_RETRY_S
        if self._rate_tokens * MAX_RETRY_S <= tokens * self._rate_seconds:
            return MAX_RETRY_S
        seconds = tokens * self._rate_seconds / self._rate_tokens
        return max(MIN_RETRY_S, math.ceil(seconds))

    def _refuse(self, reason: str, excess: float) -> None:
        retry_after_s = self.seconds_for(min(excess, self.tokens))
        raise Overloaded(f"{reason}. Try again in {retry_after_s} s.", retry_after_s=retry_after_s)
