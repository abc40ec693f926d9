from __future__ import annotations

import pytest
import torch

from caravan_kernels import reference
from caravan_kernels.gpu.token_slots import token_slots
from triton_device import DEVICE


@pytest.mark.parametrize("num_tokens", [1, 255, 600])
@pytest.mark.parametrize(("block_len", "chunk_len"), [(16, None), (16, 32), (5, 13), (1, 8)])
def test_slots(num_tokens: int, block_len: int, chunk_len: int | None) -> None:
    generator = torch.Generator().manual_seed(num_tokens)
    segments, longest = 7, 100
    positions = torch.randint(0, longest, (num_tokens,), generator=generator)
    positions[::5] = -1  # padding
    segment = torch.randint(0, segments, (num_tokens,), generator=generator).int()
    start = (torch.randperm(segments, generator=generator) * longest).int()
    pages = torch.randint(0, 2**31 - 1, (3, segments * longest), generator=generator).int()
    given = [x.to(DEVICE) for x in (positions, segment, start, pages)]
    slots = token_slots(*given, block_len=block_len, chunk_len=chunk_len)
    expected = reference.token_slots(
        positions, segment, start, pages, block_len=block_len, chunk_len=chunk_len
    )
    assert slots.dtype == torch.int64
    assert torch.equal(slots.cpu(), expected)
    assert (slots < 0).sum() == 3 * len(positions[::5])
