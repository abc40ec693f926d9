"""The kernels of Llama 4: attention over pages and in tiles, top-1 experts, norms and sampling.

Each function's specification is its twin in `reference`; the device of its tensors chooses the
implementation.
"""

from caravan_kernels.attention import paged_attention, plan_decode
from caravan_kernels.epilogue import qkv_epilogue
from caravan_kernels.linear import linear, swiglu_linear
from caravan_kernels.moe import moe_experts
from caravan_kernels.norm import add_rms_norm
from caravan_kernels.paged import DecodeTasks, PagedSegments
from caravan_kernels.reference import rotate_pairs
from caravan_kernels.slots import token_slots
from caravan_kernels.vision import vision_attention

__all__ = [
    "DecodeTasks",
    "PagedSegments",
    "add_rms_norm",
    "linear",
    "moe_experts",
    "paged_attention",
    "plan_decode",
    "qkv_epilogue",
    "rotate_pairs",
    "swiglu_linear",
    "token_slots",
    "vision_attention",
]
