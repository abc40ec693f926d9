"""The GPU benchmark, as far as it goes without a GPU: floors, figures, budgets, and every case."""

from __future__ import annotations

import csv
import gc
import json
import os
import subprocess
import sys
import time
import weakref
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import gpu
import gpu_report
import pytest
import torch
from gpu_case import Call, Case, Hardware, InputSets, round_len
from gpu_timing import Outcome, Timing

from caravan_kernels import devices

CPU = torch.device("cpu")
HARDWARE = Hardware("a card", 4e12, {torch.bfloat16: 800e12, torch.float32: 50e12})
without_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")


def nothing() -> None:
    """A call."""


class TestCase:
    @pytest.mark.parametrize(
        ("num_bytes", "flops", "dtype", "floor_us", "compute_bound"),
        [
            (4_000_000, 0, torch.bfloat16, 1.0, False),
            (4_000_000, 1_600_000_000, torch.bfloat16, 2.0, True),
            (4_000_000, 400_000_000, torch.bfloat16, 1.0, False),
            (4_000_000, 400_000_000, torch.float32, 8.0, True),
            (4_000_000, 0, torch.float16, 1.0, False),
        ],
    )
    def test_the_slower_of_moving_and_computing_is_the_floor(
        self, num_bytes: int, flops: int, dtype: torch.dtype, floor_us: float, compute_bound: bool
    ) -> None:
        case = Case("a case", nothing, bytes=num_bytes, flops=flops, dtype=dtype)
        assert 1e6 * case.floor_s(HARDWARE) == pytest.approx(floor_us)
        assert case.compute_bound(HARDWARE) == compute_bound


class TestInputSets:
    def sets(self, count: int) -> InputSets:
        made = iter(range(100))
        sets = InputSets(lambda: (next(made),), num_bytes=8, device=CPU)
        assert len(sets) == 1
        sets._count = count  # as on a GPU whose cache holds so many less one
        return sets

    def test_calls_take_the_sets_in_turn(self) -> None:
        seen: list[int] = []
        call = self.sets(3).bind(seen.append)
        for _ in range(7):
            call()
        assert seen == [0, 1, 2, 0, 1, 2, 0]
        assert round_len(call) == 3

    def test_every_bound_call_begins_with_the_first(self) -> None:
        sets = self.sets(2)
        ours, theirs = sets.bind(lambda x: x), sets.bind(lambda x: -x)
        assert [ours(), ours(), theirs(), theirs()] == [0, 1, 0, -1]

    def test_nothing_is_made_before_the_first_call(self) -> None:
        sets = InputSets(lambda: pytest.fail("made"), num_bytes=8, device=CPU)
        sets.bind(nothing)
        assert round_len(nothing) == 1


def timing(us: float, *, repeats: int = 20) -> Timing:
    return Timing(tuple(1e-6 * us * (1 + i / 100) for i in range(repeats)), 4, "graph")


class TestReport:
    CASE = Case("a case", nothing, bytes=40_000_000, flops=80_000_000)
    OUTCOMES: Mapping[str, Outcome] = {"ours": timing(20), "torch": timing(30), "b": "no such op"}

    def rows(self) -> list[gpu_report.Row]:
        return gpu_report.rows("a case", self.CASE, HARDWARE, self.OUTCOMES, {"torch": 1e-3})

    def test_figures(self) -> None:
        ours, theirs, missing = self.rows()
        middle = 20 * 1.095  # of the repeats
        assert ours.us == pytest.approx(middle)
        assert ours.p95_us == pytest.approx(20 * 1.18)
        assert ours.floor_us == pytest.approx(10)
        assert ours.share_of_floor == pytest.approx(10 / middle)
        assert ours.tb_per_s == pytest.approx(40 / middle)
        assert ours.tflop_per_s == pytest.approx(80 / middle)
        assert (ours.bound, ours.ratio_to_ours, ours.repeats) == ("memory", None, 20)
        assert theirs.ratio_to_ours == pytest.approx(1.5)
        assert theirs.difference == 1e-3
        assert (missing.us, missing.note) == (None, "no such op")

    def test_the_line(self) -> None:
        line = gpu_report.line(self.rows())
        assert line.split() == [
            *("a", "case", "21.90", "23.60", "1.83", "TB/s", "46%"),
            *("torch", "1.50", "b", "(no", "such", "op)"),
        ]
        assert len(gpu_report.HEADING.split("peers")[0]) == len(line.split("torch")[0])

    def test_the_line_of_what_computes_shows_flops(self) -> None:
        case = Case("a case", nothing, bytes=4, flops=16_000_000_000)
        rows = gpu_report.rows("a case", case, HARDWARE, {"ours": timing(40)}, {})
        assert "365 TFLOP/s" in gpu_report.line(rows)

    def test_csv(self, tmp_path: Path) -> None:
        path = tmp_path / "gpu.csv"
        gpu_report.write_csv(path, self.rows())
        with path.open() as file:
            written = list(csv.DictReader(file))
        assert [row["implementation"] for row in written] == ["ours", "torch", "b"]
        assert float(written[0]["us"]) == pytest.approx(21.9)
        assert written[2]["us"] == ""


@pytest.fixture
def made_up(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A bench module with three cases; the second one's peer fails, the third is wrong."""

    def cases(device: torch.device, *, small: bool) -> list[Case]:
        def case(name: str, peer: Call) -> Case:
            sets = InputSets(lambda: (torch.ones(10),), 40, CPU)
            return Case(name, sets.bind(lambda x: 2 * x), {"peer": peer}, bytes=80)

        return [
            case("first", lambda: 2 * torch.ones(10)),
            case("second", lambda: torch.ones(10) @ torch.ones(3)),
            case("third", lambda: 3 * torch.ones(10)),
        ]

    module = ModuleType("made_up_bench")
    module.cases = cases  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "made_up_bench", module)
    return module


def listed(*only: str) -> list[tuple[str, Case]]:
    return list(gpu.listed(list(only), CPU, ("made_up_bench",), small=True))


@pytest.mark.usefixtures("made_up")
class TestRunning:
    @pytest.mark.parametrize(
        ("only", "names"),
        [
            ([], ["first", "second", "third"]),
            (["second"], ["second"]),
            (["bench: first", "third"], ["first", "third"]),
            (["fourth"], []),
        ],
    )
    def test_names_choose(self, only: list[str], names: list[str]) -> None:
        assert [case.name for _, case in listed(*only)] == names

    def test_a_module_that_fails_is_a_case_that_fails(self) -> None:
        modules = ("no_such_module", "made_up_bench")
        named = list(gpu.listed(["all", "third"], CPU, modules, small=True))
        assert [name for name, _ in named] == ["no_such_module: all", "made_up_bench: third"]
        table = gpu.dry_run(iter(named))
        assert [row.note.split(":")[0] for row in table] == ["ModuleNotFoundError", "", ""]

    def test_a_case_is_forgotten_before_the_next(self) -> None:
        """Two cases that each fill a card cannot be there at once."""
        named = gpu.listed([], CPU, ("made_up_bench",), small=True)
        sets: list[weakref.ref[object]] = []

        def timer(calls: Mapping[str, Call], budget_s: float) -> dict[str, Outcome]:
            gc.collect()
            assert [alive for alive in sets if alive()] == []
            (function,) = (calls["ours"]._sets for _ in range(1))  # type: ignore[attr-defined]
            sets.append(weakref.ref(function))
            return dict.fromkeys(calls, "")

        gpu.measure(named, HARDWARE, timer, time.monotonic() + 100)
        assert len(sets) == 3

    def test_what_there_is_no_time_for_is_skipped(self) -> None:
        budgets: list[float] = []

        def timer(calls: Mapping[str, Call], budget_s: float) -> dict[str, Outcome]:
            budgets.append(budget_s)
            return {name: timing(10) for name in calls}

        table = gpu.measure(iter(listed()), HARDWARE, timer, time.monotonic() + 3)
        assert all(0 < budget <= 3 for budget in budgets)
        assert [row.us is None for row in table] == [False] * 6
        table = gpu.measure(iter(listed()), HARDWARE, timer, time.monotonic() + 1)
        assert [row.note for row in table] == ["skipped: the time is spent"] * 3
        assert len(budgets) == 3

    def test_results_are_compared(self) -> None:
        first, second, third = (gpu.differences(gpu.results_of(case)) for _, case in listed())
        assert first == {"peer": 0.0}
        assert second == {}
        assert third == {"peer": pytest.approx(0.5)}

    def test_a_dry_run_names_what_fails(self, capsys: pytest.CaptureFixture[str]) -> None:
        table = gpu.dry_run(iter(listed()))
        notes = [(row.implementation, row.note.split(":")[0]) for row in table if row.note]
        assert notes == [("peer", "RuntimeError")]
        assert [row.difference for row in table[::2]] == [None] * 3
        out = capsys.readouterr().out
        assert "peer 5.0e-01" in out
        assert "made_up_bench: second: peer: RuntimeError" in out


class TestMain:
    """The whole command, on a card that is made up."""

    @pytest.fixture
    def main(
        self, made_up: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> Callable[..., tuple[int, dict[str, Any]]]:
        def timer(calls: Mapping[str, Call], budget_s: float) -> dict[str, Outcome]:
            return {name: timing(10) for name in calls}

        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "empty_cache", nothing)
        monkeypatch.setattr(gpu, "MODULES", (made_up.__name__,))
        monkeypatch.setattr(gpu, "measure_hardware", lambda device: HARDWARE)
        monkeypatch.setattr(gpu, "card_state", lambda: {"clocks.sm": "1980 MHz"})
        monkeypatch.setattr(gpu, "time_calls", timer)
        monkeypatch.setattr(gpu, "engine", lambda budget_s: {"results": [], "budget": budget_s})

        def run(*arguments: str) -> tuple[int, dict[str, Any]]:
            file = tmp_path / "gpu.json"
            status = gpu.main([*arguments, "--json", str(file), "--csv", str(tmp_path / "gpu.csv")])
            facts: dict[str, Any] = json.loads(file.read_text())
            return status, facts

        return run

    def test_everything_is_written(self, main: Callable[..., tuple[int, dict[str, Any]]]) -> None:
        status, facts = main()
        assert status == 0
        assert [row["implementation"] for row in facts["results"]] == ["ours", "peer"] * 3
        assert facts["gpu"] == "a card"
        assert facts["copy_bytes_per_s"] == 4e12
        assert facts["flop_per_s"] == {"torch.bfloat16": 800e12, "torch.float32": 50e12}
        assert facts["state"]["after_cases"] == {"clocks.sm": "1980 MHz"}
        assert {"command", "date", "torch", "triton", "seconds"} <= facts.keys()
        assert facts["engine"]["budget"] == pytest.approx(540, abs=30)

    @pytest.mark.parametrize(
        ("only", "num_rows", "with_engine"),
        [(["engine"], 0, True), (["first"], 2, False), (["first", "engine"], 2, True)],
    )
    def test_only(
        self,
        main: Callable[..., tuple[int, dict[str, Any]]],
        only: list[str],
        num_rows: int,
        with_engine: bool,
    ) -> None:
        arguments = [part for name in only for part in ("--only", name)]
        status, facts = main(*arguments)
        assert status == 0
        assert len(facts["results"]) == num_rows
        assert (facts["engine"] is not None) == with_engine

    def test_a_failure_is_the_status(
        self, main: Callable[..., tuple[int, dict[str, Any]]], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(gpu, "engine", lambda budget_s: {"note": "failed with status 1"})
        assert main()[0] == 1
        assert main("--only", "first")[0] == 0
        monkeypatch.setattr(
            gpu, "time_calls", lambda calls, budget_s: dict.fromkeys(calls, "out of memory")
        )
        assert main("--only", "first")[0] == 1
        assert main("--only", "first", "--budget", "1")[0] == 0  # skipped is not failed


@without_gpu
def test_without_a_gpu_it_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert gpu.main([]) == 2
    assert "there is no GPU here" in capsys.readouterr().err


def test_a_dry_run_as_a_command() -> None:
    """In a process of its own: Triton is told to interpret before it is imported."""
    command = [sys.executable, gpu.__file__, "--dry-run", "--only", "rms_norm"]
    environment = {name: v for name, v in os.environ.items() if name != "TRITON_INTERPRET"}
    run = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "rows: rms_norm" in run.stdout


@without_gpu
@pytest.mark.parametrize("module", gpu.MODULES)
def test_every_case_runs_in_the_interpreter(module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also that a benchmark compares what is the same: peers agree with ours."""
    monkeypatch.setattr(devices, "on_gpu", lambda x: True)
    table = gpu.dry_run(gpu.listed([], CPU, (module,), small=True))
    assert table
    assert [row for row in table if row.note] == []
    assert [row for row in table if row.difference is not None and not row.difference < 0.02] == []
