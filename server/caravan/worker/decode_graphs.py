"""CUDA graphs of decode steps, from the sent numbers to the logits, for some batch sizes.

A step of n single tokens runs in the smallest graph that has n rows; the others are padding, which
reads and writes nothing. All that changes from step to step is in memory the graph knows: the
numbers of `batch.lay_out`, the page tables and the last tokens. So a graph goes on being right
while contexts grow, chunks end and requests come and go.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch
from torch import Tensor

from caravan.worker.batch import StepLayout, no_rows, pad_decode
from caravan.worker.staging import Staging, staged_bytes

Forward = Callable[[Mapping[str, Tensor], int, Tensor], None]
Replay = Callable[[], object]
Capture = Callable[[Callable[[], object]], Replay]

WARM_UP_RUNS = 2  # before a capture: kernels compile and libraries allocate what they keep


def graph_sizes(most_rows: int) -> list[int]:
    """Batch sizes to capture, up to `most_rows`.

    Padding reads no context, and no expert but that of the last row, so where memory is the bound
    it costs next to nothing; above, a graph has at most 31 rows too many.

    >>> graph_sizes(20)
    [1, 2, 4, 8, 16, 20]
    >>> graph_sizes(256)[-4:]
    [208, 224, 240, 256]
    """
    sizes = [1, 2, 4, 8, *range(16, 128, 8), *range(128, 256, 16), *range(256, 4096, 32)]
    return [*(size for size in sizes if size < most_rows), most_rows]


class DecodeGraphs:
    """Captured decode steps."""

    def __init__(
        self,
        sizes: Sequence[int],
        forward: Forward,
        capture: Capture,
        logits_RV: Tensor,
        staging: Staging,
    ) -> None:
        """`forward` takes what was sent, its rows n, and where the logits [n, V] belong.

        logits fp32 [R, V] is shared by all sizes, of which R is the largest. R is also the seat
        of padding.
        """
        self._sizes = sorted(sizes)
        self._staging = staging
        self._logits_RV = logits_RV
        largest = self._padded(no_rows(), self._sizes[-1])
        self._sent = torch.zeros(
            staged_bytes(largest.arrays), dtype=torch.uint8, device=logits_RV.device
        )
        self._replays: dict[int, Replay] = {}
        for size in reversed(self._sizes):  # the largest first: the others fit in its memory
            sent = self._send(no_rows(), size)
            self._replays[size] = capture(partial(forward, sent, size, logits_RV[:size]))

    def run(self, step: StepLayout) -> Tensor | None:
        """The logits [S, V] of a step, until the next one runs; None if no graph fits it."""
        if not step.decodes_only or step.num_segments > self._sizes[-1]:
            return None
        size = self._sizes[bisect_left(self._sizes, step.num_segments)]
        self._send(step, size)
        self._replays[size]()
        return self._logits_RV[: step.num_segments]

    def _send(self, step: StepLayout, size: int) -> dict[str, Tensor]:
        return self._staging.send(self._padded(step, size).arrays, into=self._sent)

    def _padded(self, step: StepLayout, size: int) -> StepLayout:
        return pad_decode(step, size, spare_seat=len(self._logits_RV))


class CudaCapture:
    """Captures on the current device; all graphs share one pool of memory."""

    def __init__(self) -> None:
        self._pool = torch.cuda.graph_pool_handle()

    def __call__(self, run: Callable[[], object]) -> Replay:
        """What repeats the run's device work."""
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(WARM_UP_RUNS):
                run()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool):
            run()
        return graph.replay
