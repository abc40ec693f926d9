"""The timer of the GPU benchmark, on a made-up device whose clock only calls advance."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import gpu_timing
import pytest
import torch
from gpu_case import Call, InputSets
from gpu_timing import Outcome, Timing

CPU = torch.device("cpu")


class FakeCuda:
    """As much of torch.cuda as the timer uses, on a clock that only calls advance."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.forbids_waiting = False
        self.captures: list[list[FakeCall]] = []
        self.replays: list[list[FakeCall]] = []
        self._capturing: list[FakeCall] | None = None

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        device = self

        class Event:
            def __init__(self, enable_timing: bool) -> None:
                assert enable_timing

            def record(self) -> None:
                self.at_s = device.now_s

            def elapsed_time(self, end: Event) -> float:
                return 1e3 * (end.at_s - self.at_s)

        class CUDAGraph:
            def __init__(self) -> None:
                self.calls: list[FakeCall] = []

            def replay(self) -> None:
                device.replays.append(self.calls)
                device.now_s += sum(call.seconds for call in self.calls)

        @contextmanager
        def graph(captured: CUDAGraph) -> Iterator[None]:
            device._capturing = captured.calls
            yield
            device._capturing = None
            device.captures.append(captured.calls)

        def set_sync_debug_mode(mode: str) -> None:
            device.forbids_waiting = mode == "error"

        for name, value in {
            "Event": Event,
            "CUDAGraph": CUDAGraph,
            "graph": graph,
            "synchronize": lambda: None,
            "set_sync_debug_mode": set_sync_debug_mode,
        }.items():
            monkeypatch.setattr(torch.cuda, name, value)

    def launch(self, call: FakeCall) -> None:
        if call.waits and (self.forbids_waiting or self._capturing is not None):
            raise RuntimeError("called a synchronizing CUDA operation")
        if self._capturing is not None:
            self._capturing.append(call)
        else:
            self.now_s += call.seconds + 1e-4  # launched by itself, Python takes most of the time


@dataclass(eq=False)
class FakeCall:
    """Work of so many seconds."""

    device: FakeCuda
    seconds: float
    waits: bool = False
    round_len: int = 1

    def __call__(self) -> None:
        self.device.launch(self)


class TestTimer:
    @pytest.fixture
    def device(self, monkeypatch: pytest.MonkeyPatch) -> FakeCuda:
        device = FakeCuda()
        device.install(monkeypatch)
        return device

    def test_short_calls_are_many_in_a_graph(self, device: FakeCuda) -> None:
        call = FakeCall(device, 2e-6, round_len=7)
        timed = gpu_timing.time_calls({"ours": call}, 5.0)["ours"]
        assert isinstance(timed, Timing)
        assert timed.median_s == pytest.approx(2e-6)
        assert timed.method == "graph"
        assert timed.calls * 2e-6 >= gpu_timing.GRAPH_S
        assert timed.calls % 7 == 0
        assert len(timed.seconds) == gpu_timing.MAX_REPEATS

    def test_calls_take_turns_forwards_and_backwards(self, device: FakeCuda) -> None:
        ours, theirs = FakeCall(device, 2e-3), FakeCall(device, 3e-3)
        outcomes = gpu_timing.time_calls({"ours": ours, "theirs": theirs}, 0.2)
        repeats = 40
        for outcome in outcomes.values():
            assert isinstance(outcome, Timing)
            assert len(outcome.seconds) == repeats
        order = ["ours" if replayed[0] is ours else "theirs" for replayed in device.replays]
        assert order[-2 * repeats :][:6] == ["theirs", "ours", "ours", "theirs", "theirs", "ours"]

    def test_a_call_that_waits_is_launched(self, device: FakeCuda) -> None:
        timed = gpu_timing.time_calls({"ours": FakeCall(device, 1e-3, waits=True)}, 5.0)["ours"]
        assert isinstance(timed, Timing)
        assert timed.method == "launches"
        assert timed.median_s == pytest.approx(1.1e-3)
        assert not device.captures

    def test_what_fails_or_takes_too_long_is_said(self, device: FakeCuda) -> None:
        def fails() -> None:
            raise ValueError("no such shape\nand more")

        calls: dict[str, Call] = {
            "ours": FakeCall(device, 1e-3),
            "slow": FakeCall(device, 0.2),
            "fails": fails,
        }
        outcomes = gpu_timing.time_calls(calls, 6.0)
        assert list(outcomes) == list(calls)
        assert isinstance(outcomes["ours"], Timing)
        assert outcomes["slow"] == "0.20 s a repeat: 20 exceed 2.0 s"
        assert outcomes["fails"] == "ValueError: no such shape"

    def test_rates(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(gpu_timing, "COPY_BYTES", 1000)
        monkeypatch.setattr(gpu_timing, "MATMUL_SIDE", 10)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "a card")
        hardware = gpu_timing.measure_hardware(CPU, once)
        assert hardware.bytes_per_s == pytest.approx(2 * 1000 / 21.9e-6)
        assert hardware.flops_per_s[torch.bfloat16] == pytest.approx(2 * 1000 / 21.9e-6)
        assert set(hardware.flops_per_s) == {torch.bfloat16, torch.float16, torch.float32}


def once(calls: Mapping[str, Call], budget_s: float) -> dict[str, Outcome]:
    for call in calls.values():
        call()
    return {name: Timing((21.9e-6,) * 20, 4, "graph") for name in calls}


@pytest.mark.gpu
def test_a_copy_is_timed_as_fast_as_the_memory() -> None:
    device = torch.device("cuda")
    hardware = gpu_timing.measure_hardware(device)
    assert 1e11 < hardware.bytes_per_s < 2e13
    side = 4096
    sets = InputSets(
        lambda: (torch.randn(side, side, device=device), torch.empty(side, side, device=device)),
        num_bytes=8 * side**2,
        device=device,
    )
    outcomes = gpu_timing.time_calls(
        {
            "copy": sets.bind(lambda source, target: target.copy_(source)),
            "twice": sets.bind(lambda source, target: target.copy_(source).copy_(source)),
            "waits": sets.bind(lambda source, target: source.sum().item()),
            "fails": lambda: torch.ones(2, device=device) @ torch.ones(3, device=device),
        },
        4.0,
    )
    copy, twice, waits = (outcomes[name] for name in ("copy", "twice", "waits"))
    assert isinstance(copy, Timing)
    assert isinstance(twice, Timing)
    assert isinstance(waits, Timing)
    assert 8 * side**2 / copy.median_s == pytest.approx(hardware.bytes_per_s, rel=0.2)
    assert 1.5 < twice.median_s / copy.median_s < 2.5
    assert (copy.method, waits.method) == ("graph", "launches")
    assert str(outcomes["fails"]).startswith("RuntimeError")
