"""A second stream of the GPU, for work that need not wait for what is launched next."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

# Estimated, not measured: above so many tokens one projection fills the GPU, and two side by side
# only share it.
MOST_TOKENS = 256


class SideStream:
    """Kernels launched inside `beside` may run at the same time as those between it and `join`.

    On other devices, and for many tokens, everything runs in order. The side stream waits for the
    main one at `beside` and the main one for it at `join`; what either allocates is freed after
    the `join`, so PyTorch's allocator never gives memory away that the other stream still uses.
    Captured into a CUDA graph, it is a fork and a join of the graph.
    """

    def __init__(self, device: torch.device) -> None:
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None

    @contextmanager
    def beside(self, num_tokens: int) -> Iterator[None]:
        """What is launched inside goes to the side stream."""
        if self._stream is None or num_tokens > MOST_TOKENS:
            yield
            return
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            yield

    def join(self, num_tokens: int) -> None:
        """Lets the main stream wait for what was launched beside it."""
        if self._stream is not None and num_tokens <= MOST_TOKENS:
            torch.cuda.current_stream().wait_stream(self._stream)
