"""How exact a kernel has to be: no magic tolerances."""

from __future__ import annotations

import torch
from torch import Tensor


def assert_as_exact(actual: Tensor, same_dtype: Tensor, exact: Tensor) -> None:
    """The kernel's error against fp64 is at most twice PyTorch's in the same dtype, plus one ulp.

    `same_dtype` is the reference run in the kernel's dtype, `exact` the reference run in fp64.
    """
    assert actual.shape == exact.shape
    assert torch.isfinite(actual).all()
    ulp = torch.finfo(actual.dtype).eps * exact.abs().max()
    allowed = 2 * (same_dtype.double() - exact).abs().max() + ulp
    error = (actual.double() - exact).abs().max()
    assert error <= allowed, (error.item(), allowed.item())
