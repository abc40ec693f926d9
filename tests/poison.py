"""Tensors amid NaN: what a kernel reads beside them or leaves unwritten shows in its result."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

MARGIN = 16  # elements: keeps the alignment of what lies between


def amid_nan(x: Tensor) -> Tensor:
    """The same contiguous tensor, NaN before and after it."""
    buffer = x.new_full((x.numel() + 2 * MARGIN,), float("nan"))
    inside = buffer[MARGIN:-MARGIN].view(x.shape)
    return inside.copy_(x)


def rows_amid_nan(x: Tensor) -> Tensor:
    """The same rows [T, K], NaN between and around them."""
    buffer = x.new_full((len(x) + 2, x.shape[1] + 2 * MARGIN), float("nan"))
    inside = buffer[1:-1, MARGIN:-MARGIN]
    return inside.copy_(x)


def poison_new_tensors(monkeypatch: pytest.MonkeyPatch) -> None:
    """`new_empty` gives NaN, or the largest integer."""
    original = torch.Tensor.new_empty

    def poisoned(x: Tensor, *shape: Any, **options: Any) -> Tensor:
        new = original(x, *shape, **options)
        return new.fill_(float("nan") if new.is_floating_point() else torch.iinfo(new.dtype).max)

    monkeypatch.setattr(torch.Tensor, "new_empty", poisoned)
