"""The uniform numbers of `caravan_kernels.sampling.uniform`, inside a kernel.

SplitMix64, counted instead of stepped: number i of a stream is mix(mix(seed) + (i + 1) * golden),
and its upper 53 bits make a fp64 in [0, 1). All arithmetic is modulo 2^64, and exact.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def uniform(seed, index):
    """int64, int64 -> fp64 in [0, 1)."""
    step = (index + 1).to(tl.uint64) * 0x9E3779B97F4A7C15
    bits = _mix(_mix(seed.to(tl.uint64)) + step) >> 11
    return bits.to(tl.int64).to(tl.float64) * (1.0 / (1 << 53))


@triton.jit
def _mix(bits):
    """The finaliser of SplitMix64."""
    bits = (bits ^ (bits >> 30)) * 0xBF58476D1CE4E5B9
    bits = (bits ^ (bits >> 27)) * 0x94D049BB133111EB
    return bits ^ (bits >> 31)
