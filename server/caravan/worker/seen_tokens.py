"""Which tokens a request has seen, counted on the device: what its penalties go by.

R requests with penalties, V vocabulary: one int32 per token, so a request takes 4 * V bytes
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from caravan.messages import Admission, Sampling
from caravan.worker.staging import Staging
from caravan_kernels import sampling as kernels

_NOWHERE = -1
_FIRST_ROWS = 4


def has_penalties(sampling: Sampling) -> bool:
    """Whether tokens that were there count."""
    repeats = sampling.repetition_penalty != 1
    return bool(repeats or sampling.frequency_penalty or sampling.presence_penalty)


class SeenTokens:
    """Counts for the seats whose requests have penalties. Memory grows with their number."""

    def __init__(self, vocab_size: int, num_seats: int, staging: Staging) -> None:
        self._vocab_size = vocab_size
        self._staging = staging
        self._row_of = np.full(num_seats, _NOWHERE)
        self._free: list[int] = []
        self._penalties = np.zeros((3, 0), np.float32)  # repetition, frequency, presence; by row
        self._counts_RV: Tensor | None = None

    def admit(self, seat: int, admission: Admission) -> None:
        """Counts a request's tokens; the prompt matters to the repetition penalty alone."""
        counts_V = np.bincount(
            admission.tokens[admission.num_prompt :], minlength=self._vocab_size
        ).astype(np.int32)
        sampling = admission.sampling
        if sampling.repetition_penalty != 1:
            counts_V[admission.tokens[: admission.num_prompt]] |= kernels.IN_PROMPT
        sent_V = self._staging.send({"counts": counts_V})["counts"]
        if not self._free:
            self._grow(sent_V)
        row = self._row_of[seat] = self._free.pop()
        assert self._counts_RV is not None
        self._counts_RV[row] = sent_V
        self._penalties[:, row] = (
            sampling.repetition_penalty,
            sampling.frequency_penalty,
            sampling.presence_penalty,
        )

    def release(self, seat: int) -> None:
        """Forgets a request, if it had penalties."""
        if self._row_of[seat] != _NOWHERE:
            self._free.append(int(self._row_of[seat]))
            self._row_of[seat] = _NOWHERE

    def concern(self, seats_S: NDArray[np.int64]) -> bool:
        """Whether one of these seats' requests has penalties."""
        return bool((self._row_of[seats_S] != _NOWHERE).any())

    def apply_penalties(self, seats_S: NDArray[np.int64], logits_SV: Tensor) -> None:
        """Makes tokens that were there less likely, in place."""
        row_S = self._row_of[seats_S]
        rows_R = np.flatnonzero(row_S != _NOWHERE)
        if not len(rows_R):
            return
        assert self._counts_RV is not None
        where_R = row_S[rows_R]
        penalties_3R = np.ascontiguousarray(self._penalties[:, where_R])
        sent = self._send(rows=rows_R, counts=where_R, penalties=penalties_3R)
        kernels.apply_penalties(
            logits_SV, sent["rows"], self._counts_RV[sent["counts"]], *sent["penalties"]
        )

    def count(self, seats_S: NDArray[np.int64], token_S: Tensor) -> None:
        """Counts the tokens that were drawn."""
        if self.concern(seats_S):
            assert self._counts_RV is not None
            rows = self._send(rows=self._row_of[seats_S])["rows"]
            kernels.count_tokens(self._counts_RV, rows, token_S)

    def _grow(self, like_V: Tensor) -> None:
        """Twice the rows, on the device of `like_V`."""
        old = 0 if self._counts_RV is None else len(self._counts_RV)
        new = max(_FIRST_ROWS, 2 * old)
        counts_RV = torch.zeros(new, self._vocab_size, dtype=torch.int32, device=like_V.device)
        if self._counts_RV is not None:
            counts_RV[:old] = self._counts_RV
        self._counts_RV = counts_RV
        self._penalties = np.concatenate(
            [self._penalties, np.zeros((3, new - old), np.float32)], axis=1
        )
        self._free += reversed(range(old, new))

    def _send(self, **arrays: NDArray[Any]) -> dict[str, Tensor]:
        return self._staging.send(arrays)
