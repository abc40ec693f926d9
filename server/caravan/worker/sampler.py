"""What the worker remembers of each request to draw its tokens, and the draw of one step.

The i-th token of a request's output depends on (seed, i) and the logits alone, so a request that
is admitted again after a preemption goes on as if nothing had happened.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from caravan.messages import Admission, Sampled, Sampling, TokenLogprobs
from caravan_kernels import sampling as kernels


class Sampler:
    """Logits to tokens, under each request's parameters.

    A token id outside the vocabulary is never drawn, so a bias or a stop on it has no effect.
    """

    def __init__(self, vocab_size: int, device: torch.device) -> None:
        self._vocab_size = vocab_size
        self._device = device
        self._requests: dict[int, _Request] = {}

    def admit(self, admission: Admission) -> None:
        """Remembers a request, with what it had generated before a preemption."""
        assert admission.rid not in self._requests, admission.rid
        self._requests[admission.rid] = _Request(admission, self._vocab_size, self._device)

    def release(self, rid: int) -> None:
        """Forgets a request."""
        del self._requests[rid]

    @torch.inference_mode()
    def sample(self, rids: Sequence[int], logits_SV: Tensor) -> list[Sampled]:
        """Draws and records the next token of each request.

        Row i of the logits (fp32 [S, V]) is that of rids[i]; bias and penalties are written to it.
        """
        expected = (len(rids), self._vocab_size)
        assert logits_SV.shape == expected, (logits_SV.shape, expected)
        assert logits_SV.dtype == torch.float32, logits_SV.dtype
        if not rids:
            return []
        requests = [self._requests[rid] for rid in rids]
        asked = [i for i, request in enumerate(requests) if request.sampling.logprobs is not None]
        raw_RV = logits_SV[asked]
        self._apply_changes(requests, logits_SV)
        tokens = self._draw(requests, logits_SV)
        broken = [rid for rid, token in zip(rids, tokens, strict=True) if token < 0]
        assert not broken, ("NaN or +inf among the logits of", broken)
        for request, token in zip(requests, tokens, strict=True):
            request.record(token)
        logprobs: list[TokenLogprobs | None] = [None] * len(rids)
        if asked:
            counts = [requests[i].sampling.logprobs or 0 for i in asked]
            found = self._logprobs(raw_RV, [tokens[i] for i in asked], counts)
            for i, entry in zip(asked, found, strict=True):
                logprobs[i] = entry
        return [Sampled(*row) for row in zip(rids, tokens, logprobs, strict=True)]

    def _apply_changes(self, requests: list[_Request], logits_SV: Tensor) -> None:
        """Bias, forbidden stops and penalties, in place."""
        biases = [(i, *bias) for i, request in enumerate(requests) for bias in request.biases()]
        if biases:
            kernels.apply_bias(logits_SV, *self._flatten(biases))
        seen = [
            (i, *request.seen.entries())
            for i, request in enumerate(requests)
            if request.seen is not None
        ]
        if seen:
            parameters = [request.sampling for request in requests]
            kernels.apply_penalties(
                logits_SV,
                *self._flatten(seen),
                self._column([p.repetition_penalty for p in parameters], torch.float32),
                self._column([p.frequency_penalty for p in parameters], torch.float32),
                self._column([p.presence_penalty for p in parameters], torch.float32),
            )

    def _draw(self, requests: list[_Request], logits_SV: Tensor) -> list[int]:
        """The token of each row; -1 where its logits are broken."""
        parameters = [request.sampling for request in requests]
        token_S = kernels.sample(
            logits_SV,
            self._column([p.temperature for p in parameters], torch.float32),
            self._column([p.top_k for p in parameters], torch.int64),
            self._column([p.top_p for p in parameters], torch.float64),
            self._column([p.min_p for p in parameters], torch.float32),
            self._column([_signed(p.seed) for p in parameters], torch.int64),
            self._column([request.num_generated for request in requests], torch.int64),
        )
        return [int(token) for token in token_S.tolist()]

    def _logprobs(
        self, logits_RV: Tensor, tokens: list[int], counts: list[int]
    ) -> list[TokenLogprobs]:
        """Of the drawn tokens, with the `counts[i]` best of row i, under the model's own logits."""
        chosen_R, ids_RN, values_RN = kernels.logprobs(
            logits_RV, self._column(tokens, torch.int64), max(counts)
        )
        rows = zip(chosen_R.tolist(), ids_RN.tolist(), values_RN.tolist(), counts, strict=True)
        return [
            TokenLogprobs(chosen, list(zip(ids[:count], values[:count], strict=True)))
            for chosen, ids, values, count in rows
        ]

    def _flatten(self, entries: list[tuple[int, Tensor, Tensor]]) -> tuple[Tensor, Tensor, Tensor]:
        """(row, ids, values) of several rows -> row_N, id_N, value_N."""
        rows, ids, values = zip(*entries, strict=True)
        lengths = self._column([len(row_ids) for row_ids in ids], torch.int64)
        row_N = self._column(list(rows), torch.int64).repeat_interleave(lengths)
        return row_N, torch.cat(ids), torch.cat(values)

    def _column(self, values: Sequence[float], dtype: torch.dtype) -> Tensor:
        """One value per row."""
        return torch.tensor(values, dtype=dtype, device=self._device)


class _Request:
    """What is remembered of one request."""

    def __init__(self, admission: Admission, vocab_size: int, device: torch.device) -> None:
        self.sampling: Sampling = admission.sampling
        self.num_generated = len(admission.tokens) - admission.num_prompt
        self.seen = _seen_tokens(admission, device)
        bias = [(i, value) for i, value in self.sampling.logit_bias if 0 <= i < vocab_size]
        stops = [(i, -math.inf) for i in self.sampling.stop_token_ids if 0 <= i < vocab_size]
        self._bias = _pair(bias, device)
        self._stops = _pair(stops, device)

    def biases(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Ids, and what is added to their logits for the next token."""
        if self.sampling.logit_bias:
            yield self._bias
        if self.num_generated < self.sampling.min_tokens:
            yield self._stops

    def record(self, token: int) -> None:
        """Adds a drawn token."""
        self.num_generated += 1
        if self.seen is not None:
            self.seen.add(token)


class _SeenTokens:
    """The distinct tokens of one request, and how often each of them is in its output."""

    def __init__(self, prompt: Sequence[int], output: Sequence[int], device: torch.device) -> None:
        counts = Counter(output)
        self._slots = {token: i for i, token in enumerate(dict.fromkeys((*prompt, *output)))}
        self._ids = torch.tensor(list(self._slots), dtype=torch.int64, device=device)
        self._counts = torch.tensor(
            [counts[token] for token in self._slots], dtype=torch.float32, device=device
        )

    def add(self, token: int) -> None:
        """Counts one more token of the output."""
        slot = self._slots.setdefault(token, len(self._slots))
        if slot == len(self._ids):
            room = self._ids.new_zeros(max(64, slot))
            self._ids = torch.cat([self._ids, room])
            self._counts = torch.cat([self._counts, room.float()])
        self._ids[slot] = token
        self._counts[slot] += 1

    def entries(self) -> tuple[Tensor, Tensor]:
        """Ids int64, and their counts fp32, 0 for a token of the prompt alone; both [N]."""
        return self._ids[: len(self._slots)], self._counts[: len(self._slots)]


def _seen_tokens(admission: Admission, device: torch.device) -> _SeenTokens | None:
    """None without penalties; the prompt counts for the repetition penalty alone."""
    sampling, prompt = admission.sampling, admission.tokens[: admission.num_prompt]
    repeats = sampling.repetition_penalty != 1
    if not (repeats or sampling.frequency_penalty or sampling.presence_penalty):
        return None
    output = admission.tokens[admission.num_prompt :]
    return _SeenTokens(prompt if repeats else (), output, device)


def _pair(entries: list[tuple[int, float]], device: torch.device) -> tuple[Tensor, Tensor]:
    """Ids int64 and values fp32, both [N]."""
    ids, values = [i for i, _ in entries], [value for _, value in entries]
    return (
        torch.tensor(ids, dtype=torch.int64, device=device),
        torch.tensor(values, dtype=torch.float32, device=device),
    )


def _signed(seed: int) -> int:
    """The 64 bits of a seed as int64 holds them.

    >>> [_signed(seed) for seed in (7, -1, 2**64 - 1)]
    [7, -1, -1]
    """
    return (seed + (1 << 63)) % (1 << 64) - (1 << 63)
