"""Log-probabilities of a prompt's own tokens, where a request asks for them.

The row of the token at position p scores the token at p + 1, so the last row of a prompt scores
none, and its first token has no score.

    K rows that score a token, H hidden size, V vocabulary
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from caravan.messages import Scored, Segment, TokenLogprobs
from caravan.model.llama4 import Llama4
from caravan.worker.dealt_rows import dealt_logprobs
from caravan.worker.fetching import Fetched, fetch
from caravan.worker.requests import Requests

# Rows that go through the head together: their logits take 128 * V * 4 bytes, 100 MB in Llama 4.
_ROWS = 128


class ScoredSpan(NamedTuple):
    """What a segment scores: `length` tokens from position `start` on."""

    rid: int
    start: int
    length: int
    num_top: int


class ScoredRows(NamedTuple):
    """Of a whole step."""

    spans: list[ScoredSpan]
    row_K: NDArray[np.int64]  # of the step's tokens
    token_K: NDArray[np.int64]  # the token that each row scores


def scored_rows(segments: Sequence[Segment], requests: Requests) -> ScoredRows | None:
    """The rows that score something; None if nobody asked."""
    spans, rows, tokens = [], [], []
    first_row = 0
    for segment in segments:
        state = requests[segment.rid]
        if state.prompt_logprobs is not None:
            start = segment.start + 1
            token_K = state.prompt_tokens(start, start + segment.length)
            if len(token_K):
                spans.append(ScoredSpan(segment.rid, start, len(token_K), state.prompt_logprobs))
                rows.append(first_row + np.arange(len(token_K)))
                tokens.append(token_K)
        first_row += segment.length
    return ScoredRows(spans, np.concatenate(rows), np.concatenate(tokens)) if spans else None


@dataclass(frozen=True, slots=True)
class Scores:
    """Log-probabilities that the device may still be computing."""

    spans: list[ScoredSpan]
    fetched: list[Fetched]

    def result(self) -> list[Scored]:
        """Waits for them."""
        entries = [
            TokenLogprobs(chosen, list(zip(ids, values, strict=True)))
            for piece in self.fetched
            for chosen, ids, values in zip(*(t.tolist() for t in piece.wait()), strict=True)
        ]
        scored, end = [], 0
        for span in self.spans:
            part = entries[end : end + span.length]
            end += span.length
            best = [TokenLogprobs(entry.logprob, entry.top[: span.num_top]) for entry in part]
            scored.append(Scored(span.rid, span.start, best))
        return scored


def score(model: Llama4, x_KH: Tensor, token_K: Tensor, spans: list[ScoredSpan]) -> Scores:
    """Starts scoring: x as `Llama4.hidden` gives it, token int64."""
    num_top = max(span.num_top for span in spans)
    return Scores(
        spans,
        [
            fetch(dealt_logprobs(model.group, model.logits(x), token, num_top))
            for x, token in zip(x_KH.split(_ROWS), token_K.split(_ROWS), strict=True)
        ],
    )
