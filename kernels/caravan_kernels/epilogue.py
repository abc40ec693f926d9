"""Between the qkv projection and attention: RoPE, norm, temperature, and K and V into pages."""

from __future__ import annotations

from torch import Tensor

from caravan_kernels import devices
from caravan_kernels.cpu import epilogue as cpu


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
    """See `reference.qkv_epilogue`."""
    implementation = cpu.qkv_epilogue
    if devices.on_gpu(qkv_TXD):
        from caravan_kernels.gpu import epilogue as gpu

        implementation = gpu.qkv_epilogue
    return implementation(
        qkv_TXD,
        k_PBKD,
        v_PBKD,
        slots_T,
        rope_TF=rope_TF,
        norm_eps=norm_eps,
        temperature_T=temperature_T,
    )
