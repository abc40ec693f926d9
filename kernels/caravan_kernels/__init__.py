"""The kernels of Llama 4: attention over pages and in tiles, top-1 experts, norms and sampling.

Each function's specification is its twin in `reference`; the device of its tensors chooses the
implementation.
"""

from caravan_kernels.attention import paged_attention
from caravan_kernels.epilogue import qkv_epilogue
from caravan_kernels.linear import linear
from caravan_kernels.moe import moe_experts
from caravan_kernels.paged import PagedSegments
from caravan_kernels.reference import moe_route, rms_norm, rotate_pairs, swiglu
from caravan_kernels.vision import vision_attention

__all__ = [
    "PagedSegments",
    "linear",
    "moe_experts",
    "moe_route",
    "paged_attention",
    "qkv_epilogue",
    "rms_norm",
    "rotate_pairs",
    "swiglu",
    "vision_attention",
]
