"""The exchange of small sums, between threads that play ranks and come at all times."""

from __future__ import annotations

import random
import threading
import time

import pytest
import torch
from torch import Tensor

from caravan.model.one_shot import MOST_BYTES, OneShotSum
from caravan_kernels import add_rms_norm

ROUNDS = 40


class ThreadMemory:
    """A PeerMemory of threads."""

    def __init__(self, size: int) -> None:
        self._parts = [torch.zeros(64) for _ in range(size)]
        self._barrier = threading.Barrier(size)

    def part(self, rank: int, shape: torch.Size) -> Tensor:
        return self._parts[rank][: shape.numel()].view(shape)

    def meet(self) -> None:
        self._barrier.wait(30)


def own_part(rank: int, turn: int) -> Tensor:
    generator = torch.Generator().manual_seed(1000 * rank + turn)
    return torch.randn(1 + turn % 3, 16, generator=generator)


def run_ranks(size: int, memories: list[ThreadMemory]) -> list[list[Tensor]]:
    """What each rank's norms make of a row of sums."""
    found: list[list[Tensor]] = [[] for _ in range(size)]

    def rank_main(rank: int) -> None:
        late = random.Random(rank)
        exchange = OneShotSum(rank, size, memories)
        for turn in range(ROUNDS):
            own = own_part(rank, turn)
            terms = exchange.terms(own)
            if late.random() < 0.3:
                time.sleep(late.uniform(0, 0.002))  # and the others write on, if they can
            x = torch.ones_like(own)
            found[rank].append(add_rms_norm(x, terms, torch.ones(16), 1e-5)[0])

    threads = [threading.Thread(target=rank_main, args=[rank]) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    return found


@pytest.mark.parametrize("size", [2, 4, 8])
def test_all_ranks_have_the_same_right_sums(size: int) -> None:
    found = run_ranks(size, [ThreadMemory(size), ThreadMemory(size)])
    for turn in range(ROUNDS):
        expected = sum((own_part(rank, turn) for rank in range(size)), start=torch.ones(1, 16))
        torch.testing.assert_close(found[0][turn], expected)
        for rank in range(1, size):
            assert torch.equal(found[rank][turn], found[0][turn]), (rank, turn)


def test_with_one_memory_they_would_not() -> None:
    """The proof that this test sees a rank that writes too early."""
    memory = ThreadMemory(2)
    one, other = run_ranks(2, [memory, memory])
    assert not all(map(torch.equal, one, other))


def test_what_does_not_fit_goes_another_way() -> None:
    exchange = OneShotSum(0, 2, [ThreadMemory(2), ThreadMemory(2)])
    assert exchange.fits(torch.empty(MOST_BYTES // 4))
    assert not exchange.fits(torch.empty(MOST_BYTES // 4 + 1))
