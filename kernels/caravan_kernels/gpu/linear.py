"""Dense projections: few tokens stream the weight through `few_tokens`, more go to cuBLAS.

Where cuBLAS becomes faster is a launch parameter: the kernel that a rule of `linear` or
`swiglu_linear` names is "one_token", "few_tokens" or "cublas".
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from caravan_kernels.gpu.few_tokens import few_tokens
from caravan_kernels.gpu.swiglu import swiglu
from caravan_kernels.gpu.tuning import Launch, launch_parameters


def linear(x: Tensor, weight: Tensor) -> Tensor:
    """See `reference.linear`. The weight has x's dtype."""
    launch = _launch("linear", x, weight.shape[0])
    if launch["kernel"] == "cublas":
        return F.linear(x, weight)
    return few_tokens(x, weight[None], launch, parts=1)


def swiglu_linear(x: Tensor, gate_up: Tensor) -> Tensor:
    """See `reference.swiglu_linear`. The weight has x's dtype."""
    launch = _launch("swiglu_linear", x, gate_up.shape[0] // 2)
    if launch["kernel"] == "cublas":
        return swiglu(F.linear(x, gate_up))
    return few_tokens(x, gate_up[None], launch, parts=2)


def _launch(name: str, x: Tensor, num_outputs: int) -> Launch:
    num_tokens, width = x.shape
    return launch_parameters(
        name, tokens=num_tokens, outputs=num_outputs, inputs=width, itemsize=x.itemsize
    )
