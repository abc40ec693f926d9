"""Compiles kernels for GPUs that are not here, exactly as their callers would launch them.

Run as a script, in a process of its own: the kernels of the test process are interpreted.

    python tests/compile_only.py 90 compile_attention compile_experts

imports the modules named, calls every function of their `CALLS` (a dict of name to a function
without arguments that calls kernels on meta tensors), and prints one JSON line per kernel compiled.
Nothing is launched. Compiled kernels are kept in Triton's own cache. `--without REGEX` leaves out
the calls in whose names it is found.

    REG            registers of a thread
    STACK           bytes of a thread's stack: spilled registers are there, and LOCAL stays 0
    local_accesses  instructions that read or write the stack; counted where there is one
    shared_bytes    shared memory of a block
    pointers        types that its pointers point to
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import re
import subprocess
import tempfile
from functools import cache
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


def cuobjdump(cubin: bytes, option: str) -> str:
    """What NVIDIA's tool, which comes with Triton, says of compiled code."""
    import triton

    tool = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        command = [str(tool), option, file.name]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def resource_usage(cubin: bytes) -> dict[str, int]:
    """Registers and memory: REG, STACK, SHARED, LOCAL, local_accesses."""
    text = cuobjdump(cubin, "--dump-resource-usage")
    usage = {key: int(value) for key, value in re.findall(r"(REG|STACK|SHARED|LOCAL):(\d+)", text)}
    accesses = 0
    if usage["STACK"]:
        accesses = len(re.findall(r"\b(?:LDL|STL)\b", cuobjdump(cubin, "--dump-sass")))
    return {**usage, "local_accesses": accesses}


def main(capability: int, modules: list[str], without: str | None = None) -> None:
    """Compiles the modules' calls, and prints what came of them."""
    os.environ.pop("TRITON_INTERPRET", None)
    os.environ.setdefault("TRITON_DEFAULT_FP_FUSION", "1")
    import triton
    from triton.runtime.jit import JITFunction

    from caravan_kernels.gpu import tuning

    triton.runtime.driver.set_active(CompileOnlyDriver(capability))
    tuning._device = cache(lambda: ("", capability))
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
                "wgmma": "wgmma.mma_async" in kernel.asm["ptx"],
                "pointers": sorted(set(re.findall(r"'\*k?(\w+)'", str(kernel.src.signature)))),
                **resource_usage(kernel.asm["cubin"]),
            }
            print(json.dumps(facts), flush=True)
        return kernel

    JITFunction.run = compile_only
    for module in modules:
        for call, function in importlib.import_module(module).CALLS.items():
            if without is not None and re.search(without, call):
                continue
            try:
                function()
            except Exception as error:
                raise RuntimeError(f"{call} for sm_{capability}") from error


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("capability", type=int)
    parser.add_argument("modules", nargs="+")
    parser.add_argument("--without", metavar="REGEX")
    main(**vars(parser.parse_args()))
