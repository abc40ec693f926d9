"""Compiles kernels for GPUs that are not here, exactly as their callers would launch them.

Run as a script, in a process of its own: the kernels of the test process are interpreted.

    python tests/compile_only.py 90 compile_attention compile_experts

imports the modules named, calls every function of their `CALLS` (a dict of name to a function
without arguments that calls kernels on meta tensors), and prints one JSON line per kernel compiled.
Nothing is launched.
"""

from __future__ import annotations

import importlib
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any


class CompileOnlyDriver:
    """As much of a Triton driver as compiling needs."""

    def __init__(self, capability: int) -> None:
        self._capability = capability

    def get_current_target(self) -> Any:
        from triton.backends.compiler import GPUTarget

        return GPUTarget("cuda", self._capability, 32)

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0

    def get_active_torch_device(self) -> Any:
        import torch

        return torch.device("meta")


def resource_usage(cubin: bytes) -> dict[str, int]:
    """What `cuobjdump` says of registers and memory: REG, STACK, SHARED, LOCAL."""
    import triton

    tool = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        command = [tool, "--dump-resource-usage", file.name]
        text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return {key: int(value) for key, value in re.findall(r"(REG|STACK|SHARED|LOCAL):(\d+)", text)}


def main(capability: int, modules: list[str]) -> None:
    os.environ.pop("TRITON_INTERPRET", None)
    os.environ.setdefault("TRITON_DEFAULT_FP_FUSION", "1")
    import triton
    from triton.runtime.jit import JITFunction

    from caravan_kernels.gpu import tuning

    triton.runtime.driver.set_active(CompileOnlyDriver(capability))
    tuning._device = lambda: ("", capability)
    call = ""
    seen: set[int] = set()
    launch = JITFunction.run

    def compile_only(self: Any, *args: Any, grid: Any, warmup: bool, **kwargs: Any) -> Any:
        kernel = launch(self, *args, grid=grid, warmup=True, **kwargs)
        if id(kernel) not in seen:
            seen.add(id(kernel))
            facts = {
                "call": call,
                "kernel": self.fn.__name__,
                "capability": capability,
                "shared_bytes": kernel.metadata.shared,
                "num_warps": kernel.metadata.num_warps,
                "wgmma": "wgmma" in kernel.asm["ptx"],
                **resource_usage(kernel.asm["cubin"]),
            }
            print(json.dumps(facts), flush=True)
        return kernel

    JITFunction.run = compile_only
    for module in modules:
        for call, function in importlib.import_module(module).CALLS.items():
            try:
                function()
            except Exception as error:
                raise RuntimeError(f"{call} for sm_{capability}") from error


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
