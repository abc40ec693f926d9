"""Launch parameters: the files, what is tried, and how a candidate is judged. Nothing is timed."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
import tune
from gpu_case import Call, Case, InputSets
from gpu_timing import Outcome, Timing
from triton.runtime.jit import JITFunction
from tune_search import around, neighbours, search

from caravan_kernels import devices
from caravan_kernels.gpu import tuning

FILES = sorted(tune.LAUNCH_FOLDER.glob("*.json"))
CPU = torch.device("cpu")
KERNEL = "swiglu"  # whose rules the made-up cases ask for
SIZES = {"outputs": 1024}


class TestFiles:
    @pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
    def test_a_file_has_rules_for_every_architecture_and_says_where_from(self, path: Path) -> None:
        table = json.loads(path.read_text())
        assert "sm_80" in table, "the oldest; newer ones have its rules until they have their own"
        for key, entry in table.items():
            assert set(entry) == {"source", "rules"}, key
            assert len(entry["source"]) > 10, key
            *bounded, last = entry["rules"]
            assert "up_to" not in last, key
            assert all(rule["up_to"] for rule in bounded), key
            assert all(rule["launch"] for rule in entry["rules"]), key
        for capability in (80, 90, 100):
            assert tuning.rules(path.stem, "no such GPU", capability)

    def test_no_rule_is_hidden_by_one_before_it(self) -> None:
        hidden = [
            (path.stem, key, i)
            for path in FILES
            for key, entry in json.loads(path.read_text()).items()
            for i, rule in enumerate(entry["rules"])
            for earlier in entry["rules"][:i]
            if covers(earlier.get("up_to", {}), rule.get("up_to", {}))
        ]
        assert hidden == []


def covers(wide: Mapping[str, int], narrow: Mapping[str, int]) -> bool:
    return all(name in narrow and narrow[name] <= bound for name, bound in wide.items())


class TestSearch:
    def test_it_walks_to_the_fastest(self) -> None:
        def time(launch: Mapping[str, Any]) -> float:
            n, stages = int(launch["BLOCK_N"]), int(launch["num_stages"])
            return 1 + abs(n - 256) / 512 + abs(stages - 4) / 8

        def ratio(launch: Mapping[str, Any]) -> float:
            return time(launch) / time(present)

        present = {"BLOCK_N": 32, "num_stages": 2, "num_warps": 4}
        best, best_time = search(present, [], ratio)
        assert best == {"BLOCK_N": 256, "num_stages": 4, "num_warps": 4}
        assert best_time == pytest.approx(1 / time(present))

    def test_what_is_in_use_elsewhere_is_tried(self) -> None:
        other = {"kernel": "b", "num_warps": 4}
        best, _ = search({"kernel": "a"}, [other], lambda launch: 0.5 if launch == other else 2.0)
        assert best == other

    def test_what_cannot_run_is_never_chosen(self) -> None:
        present = {"num_warps": 4}
        best, ratio = search(present, [{"num_warps": 16}], lambda launch: None)
        assert (best, ratio) == (present, 1.0)

    @pytest.mark.parametrize(("ratio", "changes"), [(0.995, False), (0.98, True)])
    def test_noise_changes_nothing(self, ratio: float, changes: bool) -> None:
        present = {"num_warps": 4}
        best, _ = search(present, [], lambda launch: ratio if launch["num_warps"] == 8 else 2.0)
        assert (best != present) == changes

    def test_nothing_is_timed_twice(self) -> None:
        timed: list[str] = []

        def evaluate(launch: Mapping[str, Any]) -> float:
            timed.append(repr(launch))
            return 1 / int(launch["BLOCK_M"])

        search({"BLOCK_M": 1, "num_warps": 4}, [{"BLOCK_M": 1, "num_warps": 8}], evaluate)
        assert len(timed) == len(set(timed))
        assert repr({"BLOCK_M": 1, "num_warps": 4}) not in timed

    def test_exhaustive_sees_what_takes_two_steps_at_once(self) -> None:
        present = {"BLOCK_M": 64, "BLOCK_N": 64}
        goal = {"BLOCK_M": 128, "BLOCK_N": 32}

        def evaluate(launch: Mapping[str, Any]) -> float:
            return 0.5 if launch == goal else 1.5

        assert search(present, [], evaluate)[0] == present
        assert search(present, [], evaluate, exhaustive=True)[0] == goal

    def test_neighbours(self) -> None:
        launch = {"kernel": "a", "BLOCK_M": 16, "num_stages": 1, "SWAP": True}
        assert list(neighbours(launch)) == [
            launch | {"BLOCK_M": 8},
            launch | {"BLOCK_M": 32},
            launch | {"num_stages": 2},
            launch | {"SWAP": False},
        ]
        assert len(list(around(launch))) == 3 * 2 * 2


class TestWatched:
    def test_it_says_which_rules_decide(self) -> None:
        with tune.watched() as hits:
            launch = tuning.launch_parameters(KERNEL, **SIZES)
        assert hits == {(KERNEL, 0)}
        assert launch == tuning.rules(KERNEL, "", 90)[0]["launch"]

    def test_it_gives_other_parameters_meanwhile(self) -> None:
        before = tuning.launch_parameters(KERNEL, **SIZES)
        with tune.watched({(KERNEL, 0): {"num_warps": 3}}):
            assert tuning.launch_parameters(KERNEL, **SIZES) == {"num_warps": 3}
        assert tuning.launch_parameters(KERNEL, **SIZES) == before


class TestMerged:
    ONE, TWO = {"num_warps": 1}, {"num_warps": 2}

    @pytest.mark.parametrize(
        ("rules", "unmeasured", "left"),
        [
            ([({"tokens": 1}, ONE), ({"tokens": 4}, ONE), ({}, TWO)], [], [1, 2]),
            ([({"tokens": 1}, ONE), ({"tokens": 4}, TWO), ({}, ONE)], [], [0, 1, 2]),
            ([({"tokens": 1}, ONE), ({}, ONE)], [], [1]),
            ([({"tokens": 1}, ONE), ({}, ONE)], [0], [0, 1]),
            ([({"tokens": 4}, ONE), ({"tokens": 1, "rows": 9}, ONE), ({}, TWO)], [], [0, 1, 2]),
            ([({"tokens": 4}, ONE), ({"rows": 9}, ONE), ({}, TWO)], [], [0, 1, 2]),
            ([({"tokens": 4, "rows": 9}, ONE), ({"rows": 9}, ONE), ({}, TWO)], [], [1, 2]),
        ],
    )
    def test_rules_that_say_the_same(
        self,
        rules: list[tuple[dict[str, int], dict[str, int]]],
        unmeasured: list[int],
        left: list[int],
    ) -> None:
        written = [
            {"up_to": bounds, "launch": launch} if bounds else {"launch": launch}
            for bounds, launch in rules
        ]
        assert tune.merged(written, unmeasured) == [written[i] for i in left]


def test_rules_are_written_beside_the_others(tmp_path: Path) -> None:
    path = tmp_path / "linear.json"
    path.write_bytes((tune.LAUNCH_FOLDER / "linear.json").read_bytes())
    before = json.loads(path.read_text())
    rules = [{"up_to": {"tokens": 4}, "launch": {"num_warps": 2}}, {"launch": {"num_warps": 8}}]
    tune.write_rules(path, "NVIDIA H200", "measured", rules)
    entry = {"source": "measured", "rules": rules}
    assert json.loads(path.read_text()) == {**before, "NVIDIA H200": entry}
    tune.write_rules(path, "NVIDIA H200", "again", rules[1:])
    after = json.loads(path.read_text())
    assert after["NVIDIA H200"] == {"source": "again", "rules": rules[1:]}


def test_the_source_names_what_made_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["tune.py", "--only", "linear"])
    line = tune.source_line([0, 2], finished=True)
    assert "python kernels/bench/tune.py --only linear" in line
    assert torch.__version__ in line
    assert "not measured, and as before: rule 1, 3" in line
    assert tune.source_line([], finished=False).endswith("unfinished")


def test_only_reached_rules_are_tuned() -> None:
    rules = (
        {"up_to": {"tokens": 4}, "launch": {"num_warps": 4}},
        {"launch": {"num_warps": 8}},
    )

    def evaluator(place: tune.Place) -> Callable[[dict[str, Any]], float | None] | None:
        return None if place == ("k", 0) else lambda launch: launch["num_warps"] / 8

    tuned, unmeasured = tune.tune_kernel("k", rules, evaluator)
    assert unmeasured == [0]
    assert tuned == [rules[0], {"launch": {"num_warps": 1}}]


def seconds(name: str) -> Timing:
    return Timing((2.0 if name == "candidate" else 4.0,) * 20, 1, "graph")


def timer(calls: Mapping[str, Call], budget_s: float) -> dict[str, Outcome]:
    """Runs each call, and says that candidates take half the time."""
    for call in calls.values():
        call()
    return {name: seconds(name) for name in calls}


@pytest.fixture
def source(monkeypatch: pytest.MonkeyPatch) -> tune.CaseSource:
    """A module of one case; its result grows by 1 with each unit of BLOCK_I above 2048."""

    def compute(x: torch.Tensor) -> torch.Tensor:
        launch = tuning.launch_parameters(KERNEL, **SIZES)
        JITFunction.run(launch["num_warps"])
        return x + float(max(0, launch["BLOCK_I"] - 2048))

    def cases(device: torch.device, *, small: bool) -> list[Case]:
        sets = InputSets(lambda: (torch.randn(1000, device=device),), 4000, device)
        return [Case(name="a case", run=sets.bind(compute))]

    def launch(num_warps: int) -> SimpleNamespace:
        return SimpleNamespace(n_spills=8 if num_warps == 1 else 0)

    module = ModuleType("made_up_cases")
    module.cases = cases  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "made_up_cases", module)
    monkeypatch.setattr(JITFunction, "run", launch)
    return tune.CaseSource("made_up_cases", 0, CPU)


class TestEvaluator:
    @pytest.mark.parametrize(
        ("launch", "refusal"),
        [
            ({"BLOCK_I": 2048, "num_warps": 4}, None),
            ({"BLOCK_I": 1024, "num_warps": 1}, "8 registers spill"),
            ({"BLOCK_I": 4096, "num_warps": 4}, "differs by"),
            ({"num_warps": 4}, "KeyError"),
        ],
    )
    def test_candidates_must_be_right_and_must_not_spill(
        self, source: tune.CaseSource, launch: dict[str, Any], refusal: str | None
    ) -> None:
        evaluator = tune.Evaluator((KERNEL, 0), [source], timer)
        ratio = evaluator(launch)
        if refusal is None:
            assert ratio == 0.5
            assert evaluator.refused == []
        else:
            assert ratio is None
            ((refused, reason),) = evaluator.refused
            assert refused == launch
            assert refusal in reason

    def test_what_cannot_be_timed_is_refused(self, source: tune.CaseSource) -> None:
        evaluator = tune.Evaluator(
            (KERNEL, 0), [source], lambda calls, budget_s: dict.fromkeys(calls, "out of memory")
        )
        assert evaluator({"BLOCK_I": 1024, "num_warps": 4}) is None
        assert "out of memory" in evaluator.refused[0][1]

    def test_a_call_under_rules_keeps_its_round(self, source: tune.CaseSource) -> None:
        sets = InputSets(lambda: (1,), 4, CPU)
        sets._count = 7
        assert tune.UnderRules(sets.bind(str), {}).round_len == 7

    def test_cases_are_found_by_the_rules_they_reach(self, source: tune.CaseSource) -> None:
        reached = tune.Reached()
        for _ in range(9):
            reached.add(source)
        assert set(reached.cases) == {(KERNEL, 0)}
        assert len(reached.chosen((KERNEL, 0))) == tune.CASES_PER_RULE


@pytest.mark.parametrize(("in_make", "times_made"), [(False, 1), (True, 2)])
def test_tensors_are_shared_unless_parameters_decide_how_they_are_made(
    monkeypatch: pytest.MonkeyPatch, in_make: bool, times_made: int
) -> None:
    """Two sets of Maverick's experts would not fit a card."""
    made: list[int] = []

    def launch() -> int:
        return int(tuning.launch_parameters(KERNEL, **SIZES)["BLOCK_I"])

    def make() -> tuple[torch.Tensor]:
        made.append(launch() if in_make else 0)
        return (torch.randn(3),)

    def run(x: torch.Tensor) -> torch.Tensor:
        return x if in_make else x * min(1, launch())

    module = ModuleType("made_up_cases")
    module.cases = lambda device, small: [  # type: ignore[attr-defined]
        Case("a case", InputSets(make, 12, device).bind(run))
    ]
    monkeypatch.setitem(sys.modules, "made_up_cases", module)
    source = tune.CaseSource("made_up_cases", 0, CPU)
    evaluator = tune.Evaluator((KERNEL, 0), [source], timer)
    assert evaluator({"BLOCK_I": 77, "num_warps": 4}) == 0.5, evaluator.refused
    assert len(made) == times_made
    assert (77 in made) == in_make


@pytest.mark.skipif(torch.cuda.is_available(), reason="small cases are for the interpreter")
@pytest.mark.parametrize(
    ("module", "kernel"),
    [
        ("attention", "decode_tasks"),
        ("attention", "prefill_attention"),
        ("experts", "few_gate_up"),
        ("dense", "linear"),
        ("rows", "qkv_epilogue"),
    ],
)
def test_a_real_kernel_is_judged(module: str, kernel: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With its own parameters it computes what it computes, with none it does not run."""
    monkeypatch.setattr(devices, "on_gpu", lambda x: True)
    cases = importlib.import_module(module).cases(CPU, small=True)
    reached = tune.Reached()
    for index in range(len(cases)):
        if not any(kernel == reached_kernel for reached_kernel, _ in reached.cases):
            reached.add(tune.CaseSource(module, index, CPU, small=True))
    place, sources = next((p, found) for p, found in reached.cases.items() if p[0] == kernel)
    evaluator = tune.Evaluator(place, sources[:1], timer)
    launch = dict(tuning.rules(kernel, "", 90)[place[1]]["launch"])
    assert evaluator(launch) == 0.5, evaluator.refused
    assert evaluator({}) is None


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_nothing_is_tuned(capsys: pytest.CaptureFixture[str]) -> None:
    assert tune.main([]) == 2
    assert "there is no GPU" in capsys.readouterr().err
