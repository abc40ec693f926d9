"""Times calls on a GPU, in turn, and measures what the card itself can do.

Each call is captured many times in one CUDA graph, which takes a millisecond or more, so neither
launching it nor the events around it count. The graphs are replayed in turn, forwards and
backwards, so that calls which are compared see the same clocks and the same neighbours. A call in
which the host waits cannot be captured; it is launched as many times between the events.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from math import ceil
from statistics import median
from typing import Literal

import torch
from gpu_case import Call, Hardware, round_len

GRAPH_S = 1e-3  # a graph shorter than this is captured again with more calls
MAX_CALLS = 2048  # in a graph
MIN_REPEATS = 20  # of which the median is taken, or a call has no figure
MAX_REPEATS = 200
COPY_BYTES = 1 << 31
MATMUL_SIDE = 8192
RATE_BUDGET_S = 3.0

# how NVIDIA's tool calls what it shows of the card's state
_STATE = "driver_version,clocks.sm,clocks.mem,clocks.max.sm,power.draw,power.limit,temperature.gpu"


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds of one call, repeat by repeat."""

    seconds: tuple[float, ...]
    calls: int  # in one repeat
    method: Literal["graph", "launches"]

    @property
    def median_s(self) -> float:
        """Of one call."""
        return median(self.seconds)

    @property
    def p95_s(self) -> float:
        """So long a call takes at most, 95 times in 100."""
        return sorted(self.seconds)[ceil(0.95 * len(self.seconds)) - 1]


Outcome = Timing | str  # or why there is none
Timer = Callable[[Mapping[str, Call], float], Mapping[str, Outcome]]


@dataclass(frozen=True, slots=True)
class _Prepared:
    """Some calls, ready to run at once."""

    run: Callable[[], object]
    calls: int
    seconds: float  # of `run`
    method: Literal["graph", "launches"]


def time_calls(calls: Mapping[str, Call], budget_s: float) -> dict[str, Outcome]:
    """Times the calls beside one another, at least 20 times each, within about `budget_s`."""
    outcomes: dict[str, Outcome] = {}
    prepared: dict[str, _Prepared] = {}
    share_s = budget_s / max(1, len(calls))
    for name, call in calls.items():
        try:
            ready = _prepare(call)
        except Exception as error:  # noqa: BLE001 whatever a peer raises, the others are timed
            outcomes[name] = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
            continue
        if ready.seconds * MIN_REPEATS > share_s:
            outcomes[name] = f"{ready.seconds:.2f} s a repeat: {MIN_REPEATS} exceed {share_s:.1f} s"
        else:
            prepared[name] = ready
    if prepared:
        outcomes |= _replay(prepared, budget_s)
    return {name: outcomes[name] for name in calls}


def _replay(prepared: Mapping[str, _Prepared], budget_s: float) -> dict[str, Outcome]:
    round_s = sum(ready.seconds for ready in prepared.values())
    repeats = max(MIN_REPEATS, min(MAX_REPEATS, int(budget_s / round_s)))
    spans: dict[str, list[tuple[torch.cuda.Event, torch.cuda.Event]]] = {n: [] for n in prepared}
    order = list(prepared)
    for _ in range(repeats):
        order.reverse()
        for name in order:
            start, end = _event(), _event()
            start.record()
            prepared[name].run()
            end.record()
            spans[name].append((start, end))
    torch.cuda.synchronize()
    return {
        name: Timing(
            tuple(1e-3 * start.elapsed_time(end) / ready.calls for start, end in spans[name]),
            ready.calls,
            ready.method,
        )
        for name, ready in prepared.items()
    }


def _prepare(call: Call) -> _Prepared:
    """Compiles, makes the inputs, and captures whole rounds of input sets."""
    round_calls = round_len(call)
    for _ in range(round_calls):
        call()
    seconds = _seconds(partial(_call_times, call, round_calls))
    count = _enough(round_calls, seconds / round_calls)
    if _waits(call):
        run = partial(_call_times, call, count)
        return _Prepared(run, count, _seconds(run), "launches")
    for _ in range(2):  # the first time includes the launches, which may be most of it
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            _call_times(call, count)
        graph.replay()
        seconds = _seconds(graph.replay)
        if seconds >= GRAPH_S or count >= MAX_CALLS:
            break
        count = _enough(round_calls, seconds / count)
    return _Prepared(graph.replay, count, seconds, "graph")


def _waits(call: Call) -> bool:
    """Whether the host waits for the device in it: such a call cannot be captured."""
    torch.cuda.set_sync_debug_mode("error")
    try:
        _call_times(call, round_len(call))
    except RuntimeError:
        return True
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return False


def _enough(round_calls: int, call_s: float) -> int:
    """Calls, in whole rounds, that take `GRAPH_S`."""
    rounds = ceil(GRAPH_S / max(call_s, 1e-9) / round_calls)
    return round_calls * max(1, min(rounds, MAX_CALLS // round_calls))


def _call_times(call: Call, count: int) -> None:
    for _ in range(count):
        call()


def _seconds(run: Callable[[], object]) -> float:
    start, end = _event(), _event()
    torch.cuda.synchronize()
    start.record()
    run()
    end.record()
    torch.cuda.synchronize()
    milliseconds: float = start.elapsed_time(end)
    return 1e-3 * milliseconds


def _event() -> torch.cuda.Event:
    return torch.cuda.Event(enable_timing=True)


def measure_hardware(device: torch.device, timer: Timer = time_calls) -> Hardware:
    """The rates of a GPU: a copy of 2 GiB, and products of random matrices."""
    source = torch.empty(COPY_BYTES, dtype=torch.uint8, device=device).random_()
    target = torch.empty_like(source)
    copy_s = _median_s(timer, partial(target.copy_, source))
    del source, target
    rates = {}
    for dtype in (torch.bfloat16, torch.float16, torch.float32):
        side = MATMUL_SIDE
        a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
        out = torch.empty_like(a)
        rates[dtype] = 2 * side**3 / _median_s(timer, partial(torch.mm, a, b, out=out))
    return Hardware(torch.cuda.get_device_name(device), 2 * COPY_BYTES / copy_s, rates)


def _median_s(timer: Timer, call: Call) -> float:
    outcome = timer({"": call}, RATE_BUDGET_S)[""]
    assert isinstance(outcome, Timing), outcome
    return outcome.median_s


def card_state() -> dict[str, str]:
    """Driver, clocks, power and temperature now; empty where NVIDIA's tool is not at hand."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return {}
    command = [tool, f"--query-gpu={_STATE}", "--format=csv,noheader", "--id=0"]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    if run.returncode:
        return {}
    values = (value.strip() for value in run.stdout.splitlines()[0].split(","))
    return dict(zip(_STATE.split(","), values, strict=True))
