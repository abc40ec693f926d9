"""What the worker remembers of each request to draw its tokens, and the draw of one step.

The i-th token of a request's output depends on (seed, i) and the logits alone, so a request that
is admitted again after a preemption goes on as if nothing had happened.

Nothing here waits for a drawn token: how many there are the host knows without seeing them, and
which ones there were, where penalties ask, is counted on the device. So the next step can be
launched before this one's tokens are fetched.

On several tensor-parallel ranks each has its words' part of all logits. The rows are dealt out:
every rank draws its own of them, whole, and tells the others the tokens. Where all rows are greedy
and nothing changes their logits, each rank's best word of each row is enough.

    S rows of a step, R those of them that ask for something, V vocabulary, P a rank's part of it,
    n this rank's own rows
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from caravan.messages import Admission, Sampling, TokenLogprobs
from caravan.model.parallel import TensorParallel
from caravan.worker.dealt_rows import best_words, dealt_logprobs
from caravan.worker.fetching import Fetched, fetch
from caravan.worker.seen_tokens import SeenTokens, has_penalties
from caravan.worker.staging import Staging
from caravan_kernels import sampling as kernels

Seats = NDArray[np.int64]


class RowMasks(NamedTuple):
    """The tokens that some rows allow; see `caravan_kernels.sampling.apply_masks`."""

    row_R: NDArray[np.int64]
    words_RW: NDArray[np.int32]

    def of(self, rows: slice) -> RowMasks:
        """Those of some neighbouring rows, counted from the first of them."""
        inside_R = (self.row_R >= rows.start) & (self.row_R < rows.stop)
        return RowMasks(self.row_R[inside_R] - rows.start, self.words_RW[inside_R])


_PARAMETERS = np.dtype(
    [
        ("temperature", np.float32),
        ("top_k", np.int64),
        ("top_p", np.float64),
        ("min_p", np.float32),
        ("seed", np.int64),
        ("index", np.int64),  # tokens generated so far
    ]
)


class Sampler:
    """Logits to tokens, under the parameters of each seat's request.

    A token id outside the vocabulary is never drawn, so a bias or a stop on it has no effect.
    """

    def __init__(
        self,
        vocab_size: int,
        num_seats: int,
        staging: Staging,
        group: TensorParallel | None = None,
    ) -> None:
        self._vocab_size = vocab_size
        self._staging = staging
        self._group = group or TensorParallel()
        self._parameters = np.zeros(num_seats, _PARAMETERS)
        self._num_logprobs = np.full(num_seats, -1)  # -1: none are asked for
        self._biases: dict[int, _Bias] = {}
        self._seen = SeenTokens(vocab_size, num_seats, staging)

    def admit(self, seat: int, admission: Admission) -> None:
        """Remembers a request, with what it had generated before a preemption."""
        sampling = admission.sampling
        num_generated = len(admission.tokens) - admission.num_prompt
        self._parameters[seat] = (
            sampling.temperature,
            sampling.top_k,
            sampling.top_p,
            sampling.min_p,
            _signed(sampling.seed),
            num_generated,
        )
        self._num_logprobs[seat] = -1 if sampling.logprobs is None else sampling.logprobs
        bias = _Bias(sampling, self._vocab_size)
        if len(bias.ids(num_generated)):
            self._biases[seat] = bias
        if has_penalties(sampling):
            self._seen.admit(seat, admission)

    def release(self, seat: int) -> None:
        """Forgets a request."""
        self._biases.pop(seat, None)
        self._seen.release(seat)

    @torch.inference_mode()
    def draw(self, seats_S: Seats, logits_SP: Tensor, masks: RowMasks | None = None) -> Drawn:
        """Starts the draw of the next token of each seat's request.

        Row i of the logits (fp32 [S, P]) is that of seats[i]; masks, bias and penalties may be
        written to it.
        """
        expected = (len(seats_S), self._group.share(self._vocab_size))
        assert logits_SP.shape == expected, (logits_SP.shape, expected)
        assert logits_SP.dtype == torch.float32, logits_SP.dtype
        counts_S = self._num_logprobs[seats_S]
        asked_R = np.flatnonzero(counts_S >= 0)
        rows_R = self._staging.send({"rows": asked_R})["rows"] if len(asked_R) else None
        raw_RP = None if rows_R is None else logits_SP[rows_R]  # before they are changed
        if self._group.size > 1 and masks is None and self._is_plain(seats_S):
            token_S = best_words(self._group, logits_SP)
        else:
            token_S = self._draw_dealt(seats_S, logits_SP, masks)
        self._seen.count(seats_S, token_S)
        self._parameters["index"][seats_S] += 1
        logprobs: tuple[Tensor, ...] = ()
        if raw_RP is not None:
            token_R = token_S[rows_R].clamp(min=0)
            logprobs = dealt_logprobs(self._group, raw_RP, token_R, int(counts_S.max()))
        return Drawn(token_S, fetch((token_S, *logprobs)), asked_R, counts_S)

    def _draw_dealt(self, seats_S: Seats, logits_SP: Tensor, masks: RowMasks | None) -> Tensor:
        """The tokens [S]: each rank draws its own rows."""
        own = self._group.own(len(seats_S))
        logits_nV = self._group.deal(logits_SP)
        token_n = torch.empty(0, dtype=torch.int64, device=logits_SP.device)
        if len(logits_nV):
            token_n = self._draw_rows(seats_S[own], logits_nV, masks.of(own) if masks else None)
        return self._group.collect(token_n, len(seats_S))

    def _draw_rows(self, seats_n: Seats, logits_nV: Tensor, masks: RowMasks | None) -> Tensor:
        """The tokens [n] of whole rows."""
        if masks is not None and len(masks.row_R):
            sent = self._staging.send(masks._asdict())
            kernels.apply_masks(logits_nV, sent["row_R"], sent["words_RW"])
        self._apply_biases(seats_n, logits_nV)
        self._seen.apply_penalties(seats_n, logits_nV)
        return self._draw(seats_n, logits_nV)

    def _is_plain(self, seats_S: Seats) -> bool:
        """Whether every row is greedy and keeps its logits as they are."""
        return not (
            (self._parameters["temperature"][seats_S] > 0).any()
            or self._seen.concern(seats_S)
            or self._biases.keys() & set(seats_S.tolist())
        )

    def _apply_biases(self, seats_S: Seats, logits_SV: Tensor) -> None:
        """Bias and forbidden stops, in place."""
        if not self._biases:
            return
        rows, ids, values = [], [], []
        for row, seat in enumerate(seats_S.tolist()):
            if bias := self._biases.get(seat):
                num_generated = int(self._parameters["index"][seat])
                ids.append(bias.ids(num_generated))
                values.append(bias.values(num_generated))
                rows.append(np.full(len(ids[-1]), row))
        if sum(map(len, rows)):
            entries = {"rows": rows, "ids": ids, "values": values}
            sent = self._staging.send({n: np.concatenate(parts) for n, parts in entries.items()})
            kernels.apply_bias(logits_SV, sent["rows"], sent["ids"], sent["values"])

    def _draw(self, seats_S: Seats, logits_SV: Tensor) -> Tensor:
        """The token of each row; -1 where its logits are broken."""
        parameters = self._parameters[seats_S]
        sent = self._staging.send(
            {name: np.ascontiguousarray(parameters[name]) for name in parameters.dtype.names or ()}
        )
        drawn = parameters["temperature"] > 0
        filters = (parameters["top_k"] > 0) | (parameters["top_p"] < 1) | (parameters["min_p"] > 0)
        return kernels.sample(
            logits_SV,
            *(sent[name] for name in ("temperature", "top_k", "top_p", "min_p", "seed", "index")),
            filtered=bool((drawn & filters).any()),
        )


@dataclass(frozen=True, slots=True)
class Drawn:
    """The tokens of a step, which the device may still be drawing."""

    token_S: Tensor  # int64 on the device; -1 where the logits are broken
    fetched: Fetched
    asked_R: NDArray[np.int64]  # the rows with log-probabilities
    counts_S: NDArray[np.int64]  # how many of the best each row wants

    def result(self) -> list[tuple[int, TokenLogprobs | None]]:
        """Waits for the tokens; each with its log-probabilities, where they were asked for."""
        token_S, *columns = (tensor.tolist() for tensor in self.fetched.wait())
        logprobs: list[TokenLogprobs | None] = [None] * len(token_S)
        for row, chosen, ids, values in zip(self.asked_R.tolist(), *columns, strict=True):
            best = list(zip(ids, values, strict=True))[: self.counts_S[row]]
            logprobs[row] = TokenLogprobs(chosen, best)
        return list(zip(token_S, logprobs, strict=True))


class _Bias:
    """What is added to the logits of one request."""

    def __init__(self, sampling: Sampling, vocab_size: int) -> None:
        bias = [(i, value) for i, value in sampling.logit_bias if 0 <= i < vocab_size]
        stops = [(i, -math.inf) for i in sampling.stop_token_ids if 0 <= i < vocab_size]
        self._min_tokens = sampling.min_tokens
        self._num_bias = len(bias)
        self._ids, self._values = _columns([*bias, *stops])

    def ids(self, num_generated: int) -> NDArray[Any]:
        """The tokens [N] concerned, after so many have been generated."""
        return self._part(self._ids, num_generated)

    def values(self, num_generated: int) -> NDArray[Any]:
        """What is added to their logits [N]."""
        return self._part(self._values, num_generated)

    def _part(self, entries: NDArray[Any], num_generated: int) -> NDArray[Any]:
        """Stops are forbidden until there are `min_tokens`."""
        return entries if num_generated < self._min_tokens else entries[: self._num_bias]


def _columns(entries: Sequence[tuple[int, float]]) -> tuple[NDArray[Any], NDArray[Any]]:
    ids = np.array([i for i, _ in entries], np.int64)
    return ids, np.array([value for _, value in entries], np.float32)


def _signed(seed: int) -> int:
    """The 64 bits of a seed as int64 holds them.

    >>> [_signed(seed) for seed in (7, -1, 2**64 - 1)]
    [7, -1, -1]
    """
    return (seed + (1 << 63)) % (1 << 64) - (1 << 63)
