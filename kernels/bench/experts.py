"""Cases of routed experts for `gpu.py`: Scout, Maverick, and one of eight ranks of Scout.

    T tokens, E experts, H hidden, I expert width

The logits are random, so the experts are chosen nearly evenly: a name says how many of them were
hit, and their weights are the bytes, once. FLOPs: 6 * T * H * I. Routing is part of what is timed.

The peers do what a user of PyTorch would: "grouped_mm" sorts the tokens and calls
`torch._grouped_mm` twice; "transformers" is the model's own layer without its shared expert, which
computes every expert for every token, and so is shown for few tokens only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from gpu_case import Case, InputSets
from torch import Tensor
from transformers.models.llama4.configuration_llama4 import Llama4TextConfig
from transformers.models.llama4.modeling_llama4 import Llama4TextExperts

import caravan_kernels as kernels
from caravan_kernels import reference

TOKENS = (1, 8, 16, 64, 256, 1024, 4096, 16384)
MOST_OF_TRANSFORMERS = 64  # tokens
HOPPER = (9, 0)  # below, torch._grouped_mm is a loop on the host


@dataclass(frozen=True, slots=True)
class Shape:
    """The experts of a layer."""

    experts: int
    hidden: int = 5120
    width: int = 8192

    @property
    def expert_elements(self) -> int:
        """Weights of one expert."""
        return 3 * self.hidden * self.width


SHAPES = {
    "Scout": Shape(16),
    "Maverick": Shape(128),
    "Scout of 8": Shape(16, width=1024),
}
SMALL = {"small": Shape(3, hidden=24, width=40)}


def cases(device: torch.device, *, small: bool) -> list[Case]:
    """All shapes with all numbers of tokens."""
    tokens_of = dict.fromkeys(SMALL, (1, 5, 40)) if small else dict.fromkeys(SHAPES, TOKENS)
    shapes = SMALL if small else SHAPES
    dtype = torch.float16 if small else torch.bfloat16
    return [
        _case(name, shapes[name], tokens, device, dtype)
        for name, counts in tokens_of.items()
        for tokens in counts
    ]


def _case(name: str, shape: Shape, tokens: int, device: torch.device, dtype: torch.dtype) -> Case:
    logits_TE = torch.randn(tokens, shape.experts, generator=torch.Generator().manual_seed(tokens))
    hit = len(reference.moe_route(logits_TE.to(dtype))[0].unique())

    def make() -> tuple[Tensor, ...]:
        def weight(*sizes: int) -> Tensor:
            drawn = torch.empty(sizes, device=device, dtype=dtype)
            return drawn.normal_(std=sizes[-1] ** -0.5)

        return (
            torch.randn(tokens, shape.hidden, device=device, dtype=dtype),
            logits_TE.to(device, dtype),
            weight(shape.experts, 2 * shape.width, shape.hidden),
            weight(shape.experts, shape.hidden, shape.width),
        )

    hit_bytes = hit * shape.expert_elements * dtype.itemsize
    sets = InputSets(make, hit_bytes, device)
    peers = {peer: sets.bind(call) for peer, call in _peers(shape, tokens, device).items()}
    return Case(
        name=f"{name}, {tokens} tokens, {hit} of {shape.experts} experts",
        run=sets.bind(kernels.moe_experts),
        peers=peers,
        bytes=hit_bytes + tokens * (2 * shape.hidden + shape.experts) * dtype.itemsize,
        flops=2 * tokens * shape.expert_elements,
        dtype=dtype,
    )


Layer = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


def _peers(shape: Shape, tokens: int, device: torch.device) -> Mapping[str, Layer]:
    found: dict[str, Layer] = {}
    if device.type == "cuda" and torch.cuda.get_device_capability(device) >= HOPPER:
        found["grouped_mm"] = grouped_mm
    if tokens <= MOST_OF_TRANSFORMERS:
        found["transformers"] = _transformers(shape)
    return found


def grouped_mm(x: Tensor, logits_TE: Tensor, gate_up_EJH: Tensor, down_EHI: Tensor) -> Tensor:
    """The layer by PyTorch's grouped matmul, without a wait for the GPU."""
    expert, score = reference.moe_route(logits_TE)
    order = expert.argsort(stable=True)
    one_hot_TE = F.one_hot(expert, len(gate_up_EJH))
    ends = one_hot_TE.sum(0).cumsum(0).to(torch.int32)
    scaled = (x * score[:, None]).type_as(x)[order]
    gate, up = torch._grouped_mm(scaled, gate_up_EJH.mT, offs=ends).chunk(2, dim=-1)
    down = torch._grouped_mm(F.silu(gate) * up, down_EHI.mT, offs=ends)
    return torch.empty_like(x).index_copy_(0, order, down)


def _transformers(shape: Shape) -> Layer:
    """transformers' layer over our weights, which it has the other way round."""
    config = Llama4TextConfig(
        hidden_size=shape.hidden,
        intermediate_size=shape.width,
        num_local_experts=shape.experts,
    )
    with torch.device("meta"):
        experts = Llama4TextExperts(config)

    def layer(x: Tensor, logits_TE: Tensor, gate_up_EJH: Tensor, down_EHI: Tensor) -> Tensor:
        expert, score = reference.moe_route(logits_TE)
        score_TE = torch.zeros_like(logits_TE).scatter_(
            1, expert[:, None], score[:, None].type_as(x)
        )
        inputs = x.repeat(shape.experts, 1) * score_TE.T.reshape(-1, 1)
        experts.gate_up_proj = torch.nn.Parameter(gate_up_EJH.mT, requires_grad=False)
        experts.down_proj = torch.nn.Parameter(down_EHI.mT, requires_grad=False)
        return experts(inputs).view(shape.experts, *x.shape).sum(0)

    return layer
