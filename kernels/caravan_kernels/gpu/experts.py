"""Top-1 mixture of experts: few tokens in two launches, more by routing and grouped matmuls.

Few tokens  `few_tokens` twice, each program finding the experts itself: nothing is sorted, and
            tokens stay in their order
More        `route` (one launch, or two), then `grouped_gate_up` and `grouped_down`

Both read each expert that was hit and no other. The sizes at which the second becomes faster are
launch parameters (`moe_experts`).
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from caravan_kernels.gpu.few_tokens import few_tokens
from caravan_kernels.gpu.grouped_matmul import grouped_down, grouped_gate_up
from caravan_kernels.gpu.route import route
from caravan_kernels.gpu.tuning import launch_parameters


def moe_experts(
    x: Tensor,
    logits_TE: Tensor,
    gate_up_EJH: Tensor,
    down_EHI: Tensor,
    num_rows: Tensor | None = None,
) -> Tensor:
    """See `reference.moe_experts`. Weights in x's dtype; rows of x and logits may be strided."""
    num_tokens, num_experts = logits_TE.shape
    sizes = {"tokens": num_tokens, "experts": num_experts}
    if launch_parameters("moe_experts", **sizes)["sorted"]:
        routing = route(logits_TE, num_rows)
        hidden_TI = grouped_gate_up(x, gate_up_EJH, routing)
        return grouped_down(hidden_TI, down_EHI, routing)
    sizes["itemsize"] = x.itemsize
    routed: dict[str, Any] = {"logits_TE": logits_TE, "num_rows": num_rows}
    launch = launch_parameters("few_gate_up", outputs=gate_up_EJH.shape[1] // 2, **sizes)
    hidden_TI = few_tokens(x, gate_up_EJH, launch, parts=2, **routed)
    launch = launch_parameters("few_down", inputs=down_EHI.shape[2], **sizes)
    return few_tokens(hidden_TI, down_EHI, launch, parts=1, **routed)
