"""RoPE, norm, temperature and the write to the pages, in one pass over the tokens.

Shapes    as `reference.qkv_epilogue`; qkv is fp32
Numerics  fp32; keys and values are rounded to nearest, ties to even
Grid      tokens, over the threads
Traffic   (2 * H + 4 * K) * T * D * 4 bytes or less: q in and out, k and v in and to the pages
"""

from __future__ import annotations

import numpy as np
import torch
from numba import njit, prange
from numpy.typing import NDArray
from torch import Tensor

from caravan_kernels.cpu.widen import WIDENED, as_array, narrow
from caravan_kernels.reference import qkv_epilogue as reference

_NO_ROPE = np.empty((0, 0), np.complex64)
_NO_TEMPERATURE = np.empty(0, np.float32)


@njit(parallel=True, fastmath={"reassoc", "contract", "nsz", "arcp"}, nogil=True, cache=True)
def _epilogue(
    qkv: NDArray[np.float32],  # [T, H + 2K, D]
    k: NDArray[np.generic],  # [slots, K, D]
    v: NDArray[np.generic],
    slots: NDArray[np.int64],  # -1: nowhere
    rope: NDArray[np.complex64],  # [T, D / 2], or empty
    norm_eps: float,  # 0: no norm
    temperature: NDArray[np.float32],  # [T], or empty
    q: NDArray[np.float32],  # [T, H, D]
) -> None:
    num_heads, num_kv_heads, head_dim = q.shape[1], k.shape[1], q.shape[2]
    for t in prange(q.shape[0]):
        row = np.empty(head_dim, np.float32)
        for head in range(num_heads + num_kv_heads):
            source = qkv[t, head]
            if rope.shape[0]:
                for pair in range(head_dim // 2):
                    turn = rope[t, pair]
                    even, odd = source[2 * pair], source[2 * pair + 1]
                    row[2 * pair] = even * turn.real - odd * turn.imag
                    row[2 * pair + 1] = even * turn.imag + odd * turn.real
            else:
                for d in range(head_dim):
                    row[d] = source[d]
            scale = np.float32(1)
            if norm_eps > 0:
                squares = np.float32(0)
                for d in range(head_dim):
                    squares += row[d] * row[d]
                scale /= np.sqrt(squares / np.float32(head_dim) + np.float32(norm_eps))
            if head < num_heads:
                if temperature.shape[0]:
                    scale *= temperature[t]
                target = q[t, head]
                for d in range(head_dim):
                    target[d] = row[d] * scale
            else:
                for d in range(head_dim):
                    row[d] *= scale
                if slots[t] >= 0:
                    narrow(row, k[slots[t], head - num_heads])
        for head in range(num_kv_heads if slots[t] >= 0 else 0):
            narrow(qkv[t, num_heads + num_kv_heads + head], v[slots[t], head])


def qkv_epilogue(
    qkv_TXD: Tensor,
    k_PBKD: Tensor,
    v_PBKD: Tensor,
    slots_T: Tensor,
    *,
    rope_TF: Tensor | None,
    norm_eps: float | None,
    temperature_T: Tensor | None,
) -> Tensor:
    """As `reference.qkv_epilogue`."""
    if k_PBKD.dtype not in WIDENED or qkv_TXD.dtype != torch.float32:
        return reference(
            qkv_TXD,
            k_PBKD,
            v_PBKD,
            slots_T,
            rope_TF=rope_TF,
            norm_eps=norm_eps,
            temperature_T=temperature_T,
        )
    tokens, heads, head_dim = qkv_TXD.shape
    q_THD = qkv_TXD.new_empty(tokens, heads - 2 * k_PBKD.shape[2], head_dim)
    _epilogue(
        qkv_TXD.contiguous().numpy(),
        as_array(k_PBKD.flatten(0, 1)),
        as_array(v_PBKD.flatten(0, 1)),
        slots_T.numpy(),
        _NO_ROPE if rope_TF is None else rope_TF.numpy(),
        norm_eps or 0.0,
        _NO_TEMPERATURE if temperature_T is None else temperature_T.numpy(),
        q_THD.numpy(),
    )
    return q_THD
