"""The tensor-parallel group: which part of each layer a rank holds, and what the ranks exchange.

Attention is divided by heads, feed-forward layers by their intermediate size, embeddings and the
head by vocabulary; the vision encoder is whole on every rank, and tiles are shared out. A layer is
two sums over the ranks, one behind attention and one behind the feed-forward layer.

    S rows of a step, P words of a rank's part of the vocabulary, n = ceil(S / size)
"""

from __future__ import annotations

from datetime import timedelta

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from caravan.model.one_shot import OneShotSum


class PeerLost(Exception):
    """Another rank has ended, or did not come within the timeout."""


class TensorParallel:
    """One rank's view of the group. Without arguments it is alone, and nothing is exchanged.

    All ranks call the same methods in the same order, with tensors of the same shapes. On the CPU
    they raise PeerLost.
    """

    def __init__(
        self,
        rank: int = 0,
        size: int = 1,
        group: dist.ProcessGroup | None = None,
        one_shot: OneShotSum | None = None,
    ) -> None:
        assert 0 <= rank < size, (rank, size)
        assert (group is None) == (size == 1), (group, size)
        self.rank = rank
        self.size = size
        # bounds a CPU's wait for the others, if it is less than the group's own; a GPU waits alone
        self.timeout: timedelta | None = None
        self._group = group
        self._one_shot = one_shot

    def share(self, total: int) -> int:
        """How many of `total` rows or columns each rank holds."""
        assert total % self.size == 0, (total, self.size)
        return total // self.size

    def all_reduce(self, x: Tensor) -> Tensor:
        """The sum of all ranks' x, in x's place."""
        if self.size > 1:
            self._wait(dist.all_reduce(x, group=self._group, async_op=True), x)
        return x

    def all_reduce_terms(self, *terms: Tensor) -> tuple[Tensor, ...]:
        """Tensors whose sum is that of all ranks' terms: often the norm is to add them up."""
        if self.size == 1:
            return terms
        own = sum(terms[1:], start=terms[0])
        if self._one_shot is not None and self._one_shot.fits(own):
            return self._one_shot.terms(own)
        return (self.all_reduce(own),)

    def own(self, count: int) -> slice:
        """Which of `count` things this rank works on: n of them, the last ranks maybe fewer."""
        each = -(-count // self.size)
        return slice(min(self.rank * each, count), min((self.rank + 1) * each, count))

    def deal(self, x_SP: Tensor) -> Tensor:
        """Each rank's part of all rows -> all parts of this rank's own rows, side by side.

        [S, P] -> [own rows, size * P]. A rank sends and receives what it holds once, n * P elements
        to and from each other one; all parts on every rank would be `size` times as much.
        """
        if self.size == 1:
            return x_SP
        rows, width = x_SP.shape
        each = -(-rows // self.size)
        sent = F.pad(x_SP, (0, 0, 0, each * self.size - rows)).contiguous()
        received = torch.empty_like(sent)
        work = dist.all_to_all_single(received, sent, group=self._group, async_op=True)
        self._wait(work, received)
        whole = received.view(self.size, each, width).transpose(0, 1).reshape(each, -1)
        own = self.own(rows)
        return whole[: own.stop - own.start]

    def gather(self, x: Tensor) -> Tensor:
        """All ranks' x, in order of rank: [size, ...]."""
        received = x.new_empty(self.size, *x.shape)
        self._wait(dist.all_gather(list(received), x, group=self._group, async_op=True), x)
        return received

    def collect(self, x: Tensor, count: int) -> Tensor:
        """What the ranks made of their own of `count` things: [own, ...] -> [count, ...]."""
        if self.size == 1:
            return x
        each = -(-count // self.size)
        sent = x.new_zeros(each, *x.shape[1:])
        sent[: len(x)] = x
        return self.gather(sent).flatten(0, 1)[:count]

    def _wait(self, work: dist.Work | None, x: Tensor) -> None:
        wait_for(work, None if x.is_cuda else self.timeout)


def wait_for(work: dist.Work | None, timeout: timedelta | None) -> None:
    """Waits for a collective, as long as its group allows or less. Raises PeerLost."""
    assert work is not None, "this process is not in the group"
    try:
        work.wait() if timeout is None else work.wait(timeout)
    except RuntimeError as error:
        raise PeerLost(str(error)) from error
