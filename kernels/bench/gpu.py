"""Every kernel on the GPU against its floor and its peers, and then the engine.

    python kernels/bench/gpu.py --json gpu.json --csv gpu.csv
    python kernels/bench/gpu.py --only "attention: decode" --only engine

The cases are those of the modules `attention`, `experts`, `dense` and `rows` beside this one; a
name has the module first. For each the table has the median time of a call and the 95th percentile,
the rate achieved, the share of the floor, and how much longer each peer takes. The floor is what
must be moved at the rate of a copy, or what must be computed at the rate of a large matrix product,
whichever takes longer; both rates are measured first, on the same card.

All of it takes at most `--budget` seconds: what does not fit is skipped, and said. `--dry-run`
needs no GPU: it runs every case once, at small sizes, in Triton's interpreter on the CPU, and
compares its result with its peers'.

Exit status: 0; 1 if a case or the engine failed; 2 if there is no GPU.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from caravan.worker import environment

environment.prepare()
if "--dry-run" in sys.argv:
    os.environ["TRITON_INTERPRET"] = "1"  # before Triton is imported

import torch
import triton
from gpu_case import Call, Case, Hardware
from gpu_report import HEADING, OURS, Row, line, rows, write_csv
from gpu_timing import Timer, card_state, measure_hardware, time_calls
from results_file import write_results

from caravan_kernels import devices

MODULES = ("attention", "experts", "dense", "rows")
ENGINE = "engine"
MODEL = Path(__file__).parent / "models/llama4-scout"
CASE_S = 6.0  # a case's repeats take no longer
LEAST_S = 2.0  # a case is not begun with less
ENGINE_S = 200.0  # kept for the engine
SKIPPED = "skipped: the time is spent"
ENGINE_ARGUMENTS = (
    *("--load-format", "dummy", "--layers", "fit", "--repeats", "2"),
    *("--concurrency", "1", "8", "64", "256", "--context", "1K", "4K", "128K", "1M"),
)


def listed(
    only: list[str], device: torch.device, modules: tuple[str, ...], *, small: bool
) -> Iterator[tuple[str, Case]]:
    """The cases whose names contain one of `only`; nothing is kept of those already yielded."""
    for module in modules:
        try:
            cases: list[Case] = importlib.import_module(module).cases(device, small=small)
        except Exception as error:  # noqa: BLE001 whatever it raises, the other modules are run
            cases = [Case("all", partial(_fail, error))]
        while cases:
            name = f"{module}: {cases[0].name}"
            if not only or any(part in name for part in only):
                yield name, cases.pop(0)
            else:
                del cases[0]


def _fail(error: Exception) -> None:
    raise error


def measure(
    named: Iterator[tuple[str, Case]], hardware: Hardware, timer: Timer, deadline: float
) -> list[Row]:
    """Prints a line per case, and returns all rows."""
    print(HEADING)
    table: list[Row] = []
    for name, case in named:
        left = deadline - time.monotonic()
        if left < LEAST_S:
            new = [Row(name, OURS, note=SKIPPED)]
        else:
            found = differences(results_of(case))
            outcomes = timer({OURS: case.run, **case.peers}, min(CASE_S, left))
            new = rows(name, case, hardware, outcomes, found)
        print(line(new), flush=True)
        table += new
        del case
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
    return table


def results_of(case: Case) -> dict[str, object]:
    """What ours and each peer compute, or the exception that one raises."""
    return {name: _attempt(call) for name, call in {OURS: case.run, **case.peers}.items()}


def differences(results: Mapping[str, object]) -> dict[str, float]:
    """Relative differences of the peers' results from ours, where they can be told."""
    ours = results[OURS]
    found = {}
    for name, theirs in results.items():
        if not isinstance(ours, torch.Tensor) or not isinstance(theirs, torch.Tensor):
            continue
        if name != OURS and ours.shape == theirs.shape and ours.is_floating_point():
            error = torch.linalg.vector_norm(theirs.float() - ours.float())
            found[name] = float(error / torch.linalg.vector_norm(ours.float()))
    return found


def _attempt(call: Call) -> object:
    try:
        return call()
    except Exception as error:  # noqa: BLE001 a peer may raise anything; it is said
        return error


def dry_run(named: Iterator[tuple[str, Case]]) -> list[Row]:
    """Runs every case and every peer once; rows without figures, but with what failed."""
    table: list[Row] = []
    for name, case in named:
        began = time.monotonic()
        results = results_of(case)
        found = differences(results)
        for implementation, result in results.items():
            failed = isinstance(result, Exception)
            note = f"{type(result).__name__}: {result}" if failed else ""
            row = Row(name, implementation, difference=found.get(implementation), note=note)
            table.append(row)
            if failed:
                print(f"{name}: {implementation}: {note}")
        shown = ", ".join(f"{peer} {x:.1e}" for peer, x in found.items())
        print(f"{name:<60} {time.monotonic() - began:5.1f} s  {shown}".rstrip(), flush=True)
    return table


def engine(budget_s: float) -> dict[str, Any]:
    """What `caravan bench engine` says of Scout with as many layers as fit the card."""
    with tempfile.NamedTemporaryFile(suffix=".json") as file:
        command = [sys.executable, "-m", "caravan", "bench", "engine", str(MODEL)]
        command += [*ENGINE_ARGUMENTS, "--budget", f"{budget_s:.0f}", "--json", file.name]
        try:
            status = subprocess.run(command, timeout=budget_s + 30, check=False).returncode
        except subprocess.TimeoutExpired:
            return {"note": f"ended after {budget_s + 30:.0f} s"}
        text = Path(file.name).read_text()
    return json.loads(text) if text else {"note": f"failed with status {status}"}


def main(arguments: list[str] | None = None) -> int:
    """Prints the table; writes it with what made it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--only", action="append", default=[], metavar="NAME", help="part of one")
    parser.add_argument("--json", type=Path, default=None, metavar="FILE")
    parser.add_argument("--csv", type=Path, default=None, metavar="FILE")
    parser.add_argument("--budget", type=float, default=540.0, metavar="SECONDS")
    parser.add_argument("--dry-run", action="store_true", help="small sizes, on the CPU")
    options = parser.parse_args(arguments)
    if options.dry_run:
        devices.on_gpu = lambda x: True
        table = dry_run(listed(options.only, torch.device("cpu"), MODULES, small=True))
        return int(any(row.note for row in table))
    if not torch.cuda.is_available():
        sys.stderr.write("gpu.py: error: there is no GPU here; --dry-run needs none\n")
        return 2
    return run(options)


def run(options: argparse.Namespace) -> int:
    """Measures the card, the cases and the engine."""
    began = time.monotonic()
    with_engine = not options.only or ENGINE in options.only
    deadline = began + options.budget - (ENGINE_S if with_engine else 0.0)
    hardware = measure_hardware(torch.device("cuda"))
    state = {"after_rates": card_state()}
    for text in _described(hardware, state["after_rates"]):
        print(text)
    kernels = [part for part in options.only if part != ENGINE]
    table: list[Row] = []
    if kernels or not options.only:
        named = listed(kernels, torch.device("cuda"), MODULES, small=False)
        table = measure(named, hardware, time_calls, deadline)
    state["after_cases"] = card_state()
    torch.cuda.empty_cache()
    engine_facts = engine(began + options.budget - time.monotonic()) if with_engine else None
    write_csv(options.csv, table)
    write_results(
        options.json,
        gpu=hardware.name,
        triton=triton.__version__,
        state=state,
        copy_bytes_per_s=hardware.bytes_per_s,
        flop_per_s={str(dtype): rate for dtype, rate in hardware.flops_per_s.items()},
        results=[asdict(row) for row in table],
        engine=engine_facts,
        seconds=time.monotonic() - began,
    )
    failed = any(row.implementation == OURS and row.note not in ("", SKIPPED) for row in table)
    return 1 if failed or (engine_facts is not None and "note" in engine_facts) else 0


def _described(hardware: Hardware, state: Mapping[str, str]) -> Iterator[str]:
    rates = ", ".join(
        f"{str(dtype).removeprefix('torch.')} {rate / 1e12:.0f}"
        for dtype, rate in hardware.flops_per_s.items()
    )
    yield (
        f"{hardware.name}: copies {hardware.bytes_per_s / 1e12:.2f} TB/s, multiplies at TFLOP/s: "
        f"{rates}"
    )
    if state:
        yield ", ".join(f"{name} {value}" for name, value in state.items())


if __name__ == "__main__":
    sys.exit(main())
