"""Every kernel compiles for sm_80, sm_90 and sm_100 as its callers launch it, and fits there.

No GPU is needed. Children compile, because the kernels of this process may be interpreted; two run
at once. What they compile stays in Triton's cache, ~/.triton/cache unless TRITON_CACHE_DIR says
otherwise, so that only the first run takes minutes.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

import compiling
from compiling import COMPUTE_BOUND, MODULES, SHARED_LIMITS, SPARED, Facts

GOOD: Facts = {
    "call": "a call",
    "kernel": COMPUTE_BOUND[0],
    "capability": 90,
    "shared_bytes": 100_000,
    "wgmma": True,
    "pointers": ["bf16", "i32"],
    "STACK": 0,
    "local_accesses": 0,
}

SPILLING = """
import torch, triton, triton.language as tl

@triton.jit
def softmax(x, y, N: tl.constexpr):
    row = tl.load(x + tl.arange(0, N))
    weights = tl.exp(row - tl.max(row, 0))
    tl.store(y + tl.arange(0, N), weights / tl.sum(weights, 0))

def call(**launch):
    x = torch.empty(2048, device="meta")
    softmax[(1,)](x, torch.empty_like(x), 2048, **launch)

CALLS = {
    "many registers": lambda: call(num_warps=8),
    "few registers": lambda: call(num_warps=1, maxnreg=32),
}
"""

Job = tuple[int, str]


class Children:
    """Compiles, two lists at once; under xdist, which has several of these, one."""

    def __init__(self, wanted: list[Job]) -> None:
        alone = "PYTEST_XDIST_WORKER" not in os.environ
        self._pool = ThreadPoolExecutor(2 if alone else 1)
        self._jobs: dict[Job, Future[list[Facts]]] = {}
        for job in wanted if alone else []:
            self.start(job)

    def start(self, job: Job) -> Future[list[Facts]]:
        if job not in self._jobs:
            spared = SPARED[job[0]]
            self._jobs[job] = self._pool.submit(compiling.compile_module, *job, without=spared)
        return self._jobs[job]

    def end(self) -> None:
        self._pool.shutdown(cancel_futures=True)


@pytest.fixture(scope="module")
def children(request: pytest.FixtureRequest) -> Iterator[Children]:
    names = {item.name for item in request.session.items}
    jobs = [(capability, module) for module in MODULES for capability in SHARED_LIMITS]
    running = Children([job for job in jobs if any(f"[{job[1]}-{job[0]}]" in n for n in names)])
    yield running
    running.end()


@pytest.mark.parametrize("capability", SHARED_LIMITS)
@pytest.mark.parametrize("module", MODULES)
def test_it_compiles_and_fits(children: Children, capability: int, module: str) -> None:
    sheets = children.start((capability, module)).result()
    print(compiling.table(sheets))
    assert sheets
    assert not compiling.broken_rules(sheets)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({}, ""),
        ({"shared_bytes": 232449}, "shared memory"),
        ({"shared_bytes": 232448}, ""),
        ({"capability": 80, "shared_bytes": 166913}, "shared memory"),
        ({"STACK": 8, "local_accesses": 2}, "spills"),
        ({"STACK": 8, "local_accesses": 0}, ""),  # a frame that is never used
        ({"STACK": 16, "local_accesses": 6, "pointers": ["fp32"]}, ""),
        ({"STACK": 24, "local_accesses": 6, "pointers": ["fp32"]}, "spills"),
        ({"wgmma": False}, "wgmma"),
        ({"wgmma": False, "pointers": ["fp32"]}, ""),
        ({"wgmma": False, "kernel": "another"}, ""),
        ({"wgmma": False, "capability": 100}, ""),
    ],
)
def test_the_rules(changes: Facts, problem: str) -> None:
    found = list(compiling.problems(GOOD | changes))
    assert len(found) == bool(problem)
    assert problem in "".join(found)


def test_a_kernel_that_spills_is_found(tmp_path: Path) -> None:
    (tmp_path / "compile_spilling.py").write_text(SPILLING)
    many, few = compiling.compile_module(90, "compile_spilling", tmp_path)
    assert (many["STACK"], many["local_accesses"]) == (0, 0)
    assert few["STACK"] >= 4 * (2048 // 32 - 32)  # bytes: what 32 registers cannot hold
    assert few["local_accesses"] > 0
    assert list(compiling.problems(many)) == []
    assert "spills" in "".join(compiling.problems(few))
    assert many["pointers"] == ["fp32"]


@pytest.mark.parametrize(
    ("name", "spared_by"),
    [
        ("prefill, TP 1, torch.bfloat16", set()),
        ("prefill, TP 1, torch.float16", {80, 90, 100}),
        ("scout fp16 4 tokens", {80, 90, 100}),
        ("scout fp32 4 tokens", {100}),
        ("norm torch.float32", {100}),
    ],
)
def test_calls_are_spared_by_their_names(name: str, spared_by: set[int]) -> None:
    assert {capability for capability in SPARED if re.search(SPARED[capability], name)} == spared_by


def test_spared_calls_are_not_compiled(tmp_path: Path) -> None:
    (tmp_path / "compile_some.py").write_text(SPILLING)
    (sheet,) = compiling.compile_module(90, "compile_some", tmp_path, without="few")
    assert sheet["call"] == "many registers"


def test_a_kernel_that_does_not_compile_fails(tmp_path: Path) -> None:
    (tmp_path / "compile_broken.py").write_text(SPILLING.replace("tl.max(row, 0)", "tl.no(row)"))
    with pytest.raises(compiling.CompileError, match=r"(?s)compile_broken for sm_80.*tl.*no"):
        compiling.compile_module(80, "compile_broken", tmp_path)


def test_the_kernels_bound_by_arithmetic_exist(children: Children) -> None:
    """A kernel that is renamed takes its rule along."""
    sheets = [facts for module in MODULES for facts in children.start((90, module)).result()]
    assert set(COMPUTE_BOUND) <= {facts["kernel"] for facts in sheets if facts["wgmma"]}
