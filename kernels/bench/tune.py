"""Finds launch parameters on the present GPU and writes them to `gpu/launch/*.json`.

    python kernels/bench/tune.py --only few_gate_up --only few_down

What is tuned are the rules of `caravan_kernels.gpu.tuning` that hold on this GPU, each at the cases
of the GPU benchmark that it decides: the rules are the sizes to tell apart, the cases their real
shapes. A candidate counts if it compiles without spilling, computes what the present parameters
compute, and is faster than them in pairs over all those cases. The result is written under the
GPU's name, kernel by kernel, with what made it; rules that no case reaches are taken over as they
are, and named.

A kernel that has an entry under the GPU's name is passed over (`--again`: it is tuned further)
unless it says that it is unfinished, so what `--budget` seconds have no time for is done by calling
this again.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.resources import files
from math import prod
from pathlib import Path
from typing import Any

from caravan.worker import environment

environment.prepare()

import torch
import triton
from gpu import MODULES
from gpu_case import Call, Case, from_first, round_len
from gpu_timing import Timer, Timing, card_state, time_calls
from triton.runtime.jit import JITFunction
from tune_search import Launch, search

from caravan_kernels.gpu import tuning

LAUNCH_FOLDER = Path(str(files("caravan_kernels.gpu").joinpath("launch")))
CASES_PER_RULE = 3
TIMING_S = 0.5  # for one candidate at one case
UNFINISHED = "unfinished"
TOLERANCE = 0.02  # of results, relative: both may round in bfloat16, in another order

Place = tuple[str, int]  # a kernel, and which of its rules


class WatchedRule(dict[str, Any]):
    """A rule that says when it decides, and may give other parameters."""

    def __init__(
        self,
        rule: Mapping[str, Any],
        place: Place,
        overrides: Mapping[Place, Launch],
        hits: set[Place],
    ) -> None:
        super().__init__(rule)
        self._place, self._overrides, self._hits = place, overrides, hits

    def __getitem__(self, key: str) -> Any:  # noqa: ANN401 as in the file
        if key == "launch":
            self._hits.add(self._place)
            if self._place in self._overrides:
                return self._overrides[self._place]
        return super().__getitem__(key)


@contextmanager
def watched(overrides: Mapping[Place, Launch] | None = None) -> Iterator[set[Place]]:
    """The rules that decide meanwhile; those in `overrides` give these parameters."""
    hits: set[Place] = set()
    rules = tuning.rules

    def watched_rules(kernel: str, name: str, capability: int) -> tuple[dict[str, Any], ...]:
        found = enumerate(rules(kernel, name, capability))
        return tuple(WatchedRule(rule, (kernel, i), overrides or {}, hits) for i, rule in found)

    tuning.rules = watched_rules  # type: ignore[assignment]  # the original is cached
    try:
        yield hits
    finally:
        tuning.rules = rules


@contextmanager
def compiled_kernels() -> Iterator[list[Any]]:
    """The kernels that are launched meanwhile."""
    launch = JITFunction.run
    kernels: list[Any] = []

    def run(self: Any, *arguments: Any, **settings: Any) -> Any:  # noqa: ANN401 Triton's own
        kernels.append(launch(self, *arguments, **settings))
        return kernels[-1]

    JITFunction.run = run
    try:
        yield kernels
    finally:
        JITFunction.run = launch


@dataclass(frozen=True, slots=True)
class CaseSource:
    """A case that can be made again, with the same numbers."""

    module: str
    index: int
    device: torch.device
    small: bool = False

    def make(self) -> Case:
        """Without its tensors, which the first call makes."""
        torch.manual_seed(0)
        cases: list[Case] = importlib.import_module(self.module).cases(
            self.device, small=self.small
        )
        return cases[self.index]


class UnderRules:
    """A call while some rules give other parameters."""

    def __init__(self, call: Callable[[], object], overrides: Mapping[Place, Launch]) -> None:
        self._call = call
        self._overrides = overrides
        self.round_len = round_len(call)

    def __call__(self) -> object:
        """Calls it so."""
        with watched(self._overrides):
            return self._call()


@dataclass(slots=True)
class Reached:
    """Which rules decide which cases."""

    cases: dict[Place, list[CaseSource]] = field(default_factory=dict)

    def add(self, source: CaseSource) -> None:
        """Runs a case once; one that fails is named, and left out."""
        case = source.make()
        with watched() as hits:
            try:
                case.run()
            except Exception as error:  # noqa: BLE001 whatever it raises, the others are tuned
                print(f"{source.module}: {case.name}: {type(error).__name__}: {error}")
                return
        for place in hits:
            self.cases.setdefault(place, []).append(source)

    def chosen(self, place: Place) -> list[CaseSource]:
        """The first case of a rule, the last, and one between."""
        found = self.cases[place]
        if len(found) <= CASES_PER_RULE:
            return found
        return [found[0], found[len(found) // 2], found[-1]]


class Evaluator:
    """Times candidates of one rule against the present parameters."""

    def __init__(self, place: Place, sources: list[CaseSource], timer: Timer) -> None:
        self._place = place
        self._sources = sources
        self._timer = timer
        self.refused: list[tuple[Launch, str]] = []

    def __call__(self, launch: Launch) -> float | None:
        """Time over that of the present parameters, the geometric mean of the cases."""
        ratios = []
        for source in self._sources:
            try:
                ratios.append(self._ratio(source, launch))
            except Exception as error:  # noqa: BLE001 whatever a compiler raises, others are tried
                self.refused.append((launch, f"{type(error).__name__}: {str(error)[:200]}"))
                return None
        return float(prod(ratios) ** (1 / len(ratios)))

    def _ratio(self, source: CaseSource, launch: Launch) -> float:
        calls = self._calls(source, launch)
        torch.manual_seed(0)
        expected = calls["present"]()
        torch.manual_seed(0)
        with compiled_kernels() as kernels:
            result = calls["candidate"]()
        spills = max((getattr(kernel, "n_spills", None) or 0 for kernel in kernels), default=0)
        if spills:
            raise ValueError(f"{spills} registers spill")
        _compare(result, expected)
        outcomes = self._timer(calls, TIMING_S)
        times = [outcomes[name] for name in ("candidate", "present")]
        if not all(isinstance(outcome, Timing) for outcome in times):
            raise ValueError(f"not timed: {times}")
        candidate_s, present_s = (o.median_s for o in times if isinstance(o, Timing))
        return candidate_s / present_s

    def _calls(self, source: CaseSource, launch: Launch) -> dict[str, Call]:
        """The case as it is, and with other parameters; both begin with equal tensors."""
        case = source.make()
        from_first(case.run)()
        with watched() as hits:
            from_first(case.run)()
        # Cases share their tensors, which may fill half the card, unless parameters decide how
        # tensors are made.
        changed = case if self._place in hits else source.make()
        overrides = {self._place: launch}
        return {
            "present": UnderRules(from_first(case.run), {}),
            "candidate": UnderRules(from_first(changed.run), overrides),
        }


def _compare(result: object, expected: object) -> None:
    """Raises ValueError if two results are not the same but for rounding."""
    if isinstance(result, tuple) and isinstance(expected, tuple):
        for one, other in zip(result, expected, strict=True):
            _compare(one, other)
    if not isinstance(result, torch.Tensor) or not isinstance(expected, torch.Tensor):
        return
    if not expected.is_floating_point():
        if not torch.equal(result, expected):
            raise ValueError("other integers than with the present parameters")
        return
    error = torch.linalg.vector_norm(result.float() - expected.float())
    scale = torch.linalg.vector_norm(expected.float())
    if not error <= TOLERANCE * scale:
        raise ValueError(f"differs by {float(error / scale):.1e} from the present parameters")


def tune_kernel(
    kernel: str,
    rules: tuple[dict[str, Any], ...],
    evaluator: Callable[[Place], Callable[[Launch], float | None] | None],
    *,
    exhaustive: bool = False,
) -> tuple[list[dict[str, Any]], list[int]]:
    """The rules with the best parameters found, and the indices of those that were not measured."""
    tuned, unmeasured = [], []
    for i, rule in enumerate(rules):
        evaluate = evaluator((kernel, i))
        launch = dict(rule["launch"])
        if evaluate is None:
            unmeasured.append(i)
        else:
            others = [dict(other["launch"]) for other in rules if other is not rule]
            launch, ratio = search(launch, others, evaluate, exhaustive=exhaustive)
            print(
                f"{kernel} {rule.get('up_to', {})}: {launch}, {ratio:.2f} of the time", flush=True
            )
        tuned.append({**rule, "launch": launch})
    return merged(tuned, unmeasured), unmeasured


def merged(rules: list[dict[str, Any]], unmeasured: list[int]) -> list[dict[str, Any]]:
    """Without measured rules whose sizes the next rule covers with the same parameters."""
    kept = []
    for i, rule in enumerate(rules):
        later = rules[i + 1] if i + 1 < len(rules) else None
        covered = (
            later is not None
            and i not in unmeasured
            and later["launch"] == rule["launch"]
            and all(
                name in rule.get("up_to", {}) and bound >= rule["up_to"][name]
                for name, bound in later.get("up_to", {}).items()
            )
        )
        if not covered:
            kept.append(rule)
    return kept


def write_rules(path: Path, name: str, source: str, rules: list[dict[str, Any]]) -> None:
    """Puts the rules of a GPU into a kernel's file; one rule a line."""
    table = json.loads(path.read_text())
    table[name] = {"source": source, "rules": rules}
    entries = []
    for key, entry in table.items():
        lines = ",\n".join(f"      {json.dumps(rule)}" for rule in entry["rules"])
        described = f'    "source": {json.dumps(entry["source"])},\n    "rules": [\n{lines}\n    ]'
        entries.append(f"  {json.dumps(key)}: {{\n{described}\n  }}")
    path.write_text("{\n" + ",\n".join(entries) + "\n}\n")


def source_line(unmeasured: list[int], *, finished: bool) -> str:
    """What made a file's entry."""
    command = " ".join(["python", "kernels/bench/tune.py", *sys.argv[1:]])
    driver = card_state().get("driver_version", "unknown")
    line = (
        f"measured: {command}; {time.strftime('%Y-%m-%d')}, torch {torch.__version__}, "
        f"triton {triton.__version__}, driver {driver}"
    )
    if unmeasured:
        numbers = ", ".join(str(i + 1) for i in unmeasured)
        line += f"; not measured, and as before: rule {numbers} of those before merging"
    return line if finished else f"{line}; {UNFINISHED}"


def main(arguments: list[str] | None = None) -> int:
    """Tunes the kernels; exit status 2 without a GPU."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--only", action="append", default=[], metavar="KERNEL")
    parser.add_argument("--again", action="store_true", help="kernels that have an entry, too")
    parser.add_argument("--exhaustive", action="store_true", help="combinations of steps, too")
    parser.add_argument("--budget", type=float, default=540.0, metavar="SECONDS")
    options = parser.parse_args(arguments)
    if not torch.cuda.is_available():
        sys.stderr.write("tune.py: error: there is no GPU here\n")
        return 2
    deadline = time.monotonic() + options.budget
    device = torch.device("cuda")
    reached = Reached()
    for module in MODULES:
        for index in range(len(importlib.import_module(module).cases(device, small=False))):
            reached.add(CaseSource(module, index, device))
            torch.cuda.empty_cache()
    name, capability = tuning._device()
    for kernel in sorted({kernel for kernel, _ in reached.cases}):
        path = LAUNCH_FOLDER / f"{kernel}.json"
        if options.only and kernel not in options.only:
            continue
        entry = json.loads(path.read_text()).get(name, {"source": UNFINISHED})
        if not entry["source"].endswith(UNFINISHED) and not options.again:
            continue
        if time.monotonic() > deadline:
            print(f"{kernel}: not tuned, the time is spent")
            continue
        evaluator = _evaluators(reached, deadline)
        rules = tuning.rules(kernel, name, capability)
        tuned, unmeasured = tune_kernel(kernel, rules, evaluator, exhaustive=options.exhaustive)
        finished = time.monotonic() < deadline
        write_rules(path, name, source_line(unmeasured, finished=finished), tuned)
    return 0


def _evaluators(
    reached: Reached, deadline: float
) -> Callable[[Place], Callable[[Launch], float | None] | None]:
    """Of each rule that a case reaches; after the deadline they try nothing any more."""

    def of(place: Place) -> Callable[[Launch], float | None] | None:
        if place not in reached.cases or time.monotonic() > deadline:
            return None
        evaluator = Evaluator(place, reached.chosen(place), time_calls)
        return lambda launch: None if time.monotonic() > deadline else evaluator(launch)

    return of


if __name__ == "__main__":
    sys.exit(main())
