"""Runs `compile_only` over the compile lists, a child process for each, and judges what it says.

    python tests/compiling.py 90 --json kernels/bench/results/compile-sm90.json

prints a table of all kernels, compiled for sm_90: registers, stack, shared memory, and whether they
use the architecture's matrix instructions. Exit status 1 if one of them breaks a rule.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

TESTS = Path(__file__).parent
MODULES = tuple(sorted(p.stem for p in TESTS.glob("compile_*.py") if p.stem != "compile_only"))
SHARED_LIMITS = {80: 166912, 90: 232448, 100: 232448}  # bytes that one block can have
HOPPER = 90
HALVES = {"bf16", "fp16"}
FP32_STACK = 16  # bytes: four registers, which Triton 3.6 spills of decode in fp32

# What tests leave out, by a call's name. Half types compile alike; sm_100 has sm_90's limits and
# rules, and does fp32 without instructions of its own.
_FP16 = r"(?<!b)float16|fp16"
SPARED = {80: _FP16, 90: _FP16, 100: _FP16 + "|(fp|float)32"}

# kernels bound by arithmetic, which on Hopper need its asynchronous matrix instructions
COMPUTE_BOUND = ("_grouped_kernel", "_prefill_kernel", "_vision_kernel")

Facts = dict[str, Any]


class CompileError(Exception):
    """A kernel does not compile; the compiler's last words."""


def compile_module(
    capability: int, module: str, path: Path = TESTS, without: str | None = None
) -> list[Facts]:
    """One fact sheet per kernel of a compile list in `path`, but for the calls named `without`."""
    folders = [str(path), str(TESTS), *sys.path]
    command = [sys.executable, str(TESTS / "compile_only.py"), str(capability), module]
    run = subprocess.run(
        [*command, *(["--without", without] if without else [])],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(folders)},
        capture_output=True,
        text=True,
        check=False,
    )
    if run.returncode:
        raise CompileError(f"{module} for sm_{capability}:\n{run.stderr[-4000:]}")
    return [json.loads(line) for line in run.stdout.splitlines()]


def problems(facts: Facts) -> Iterator[str]:
    """The rules that a compiled kernel breaks."""
    capability = facts["capability"]
    limit = SHARED_LIMITS[capability]
    if facts["shared_bytes"] > limit:
        yield f"{facts['shared_bytes']} bytes of shared memory; a block can have {limit}"
    if capability != HOPPER:
        return
    half = bool(HALVES & set(facts["pointers"]))
    if facts["local_accesses"] and (half or facts["STACK"] > FP32_STACK):
        yield f"{facts['STACK']} bytes of stack, {facts['local_accesses']} accesses: it spills"
    if half and facts["kernel"] in COMPUTE_BOUND and not facts["wgmma"]:
        yield "it is bound by arithmetic and does not use wgmma"


def broken_rules(sheets: Sequence[Facts]) -> list[str]:
    """Every rule that one of the kernels breaks, with the kernel and its call."""
    return [
        f"{facts['kernel']} ({facts['call']}): {problem}"
        for facts in sheets
        for problem in problems(facts)
    ]


def table(sheets: Sequence[Facts]) -> str:
    """A line per kernel."""
    lines = [f"{'call':<44} {'kernel':<26} warps  regs  stack  shared  wgmma"]
    lines += [
        f"{f['call']:<44} {f['kernel']:<26} {f['num_warps']:5} {f['REG']:5} {f['STACK']:6} "
        f"{f['shared_bytes']:7}  {'yes' if f['wgmma'] else ''}".rstrip()
        for f in sheets
    ]
    return "\n".join(lines)


def main() -> int:
    """Compiles everything for one architecture; two children at once."""
    parser = argparse.ArgumentParser(description="registers and shared memory of every kernel")
    parser.add_argument("capability", type=int, choices=SHARED_LIMITS)
    parser.add_argument("--json", type=Path, default=None, metavar="FILE")
    arguments = parser.parse_args()
    with ThreadPoolExecutor(2) as pool:
        found = pool.map(partial(compile_module, arguments.capability), MODULES)
        sheets = [facts for module_sheets in found for facts in module_sheets]
    print(table(sheets))
    if arguments.json is not None:
        made_by = {
            "command": sys.argv,
            "date": time.strftime("%Y-%m-%d"),
            "triton": version("triton"),
            "torch": version("torch"),
        }
        lines = ",\n".join(f"  {json.dumps(facts)}" for facts in sheets)
        text = json.dumps({**made_by, "kernels": []}, indent=1)
        arguments.json.write_text(
            text.replace('"kernels": []', f'"kernels": [\n{lines}\n ]') + "\n"
        )
    broken = broken_rules(sheets)
    print("\n".join(broken))
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
