"""Where tests run Triton kernels: on the GPU, or on the CPU in Triton's interpreter.

The interpreter has to be chosen before a kernel is decorated, so conftest imports this first.
"""

from __future__ import annotations

import os

import torch

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")

# The interpreter computes tl.dot wrongly in bfloat16.
DTYPES = [torch.float32, torch.float16, *([torch.bfloat16] if torch.cuda.is_available() else [])]
