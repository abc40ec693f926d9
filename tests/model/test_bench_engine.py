"""`caravan bench engine` on tiny models: what it writes, and that standing requests decode."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from caravan.cli import main
from caravan.cli.bench_context import Standing, fill_pages
from caravan.config import SchedulerConfig
from caravan.messages import Generate, Sampled, Sampling, StepPlan
from caravan.scheduling.scheduler import Scheduler
from in_process import load

SMALL = ("--device", "cpu", "--kv-cache-memory-bytes", "4000000", "--output-len", "5")


@pytest.fixture
def bench(tiny_checkpoint: Callable[..., Path], tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Runs the command; the figures that it wrote."""

    def run(*arguments: str, variant: str = "scout", **overrides: object) -> dict[str, Any]:
        model = tiny_checkpoint(variant, **overrides)
        file = tmp_path / "figures.json"
        assert main(["bench", "engine", str(model), *SMALL, *arguments, "--json", str(file)]) == 0
        facts: dict[str, Any] = json.loads(file.read_text())
        return facts

    return run


def test_prompts(bench: Callable[..., dict[str, Any]]) -> None:
    facts = bench("--input-len", "40", "--concurrency", "1", "3", "--repeats", "1")
    assert [result["concurrency"] for result in facts["results"]] == [1, 3]
    for result in facts["results"]:
        assert result["input_len"] == 40
        assert result["context"] is None
        assert result["ttft_s"] > 0
        assert result["tpot_s"] > 0
        assert result["share_of_floor"] == pytest.approx(result["floor_s"] / result["tpot_s"])
    assert facts["layers"] == facts["layers_of_model"] == 4
    assert facts["memory_bytes_per_s"] > 1e8


def test_contexts(bench: Callable[..., dict[str, Any]]) -> None:
    facts = bench("--context", "32", "200", "--concurrency", "1", "3", "--repeats", "2")
    places = [(result["context"], result["concurrency"]) for result in facts["results"]]
    assert places == [(32, 1), (32, 3), (200, 1), (200, 3)]
    for result in facts["results"]:
        assert result["ttft_s"] is None
        assert result["step_p95_s"] >= result["tpot_s"] / 2
        rate = result["concurrency"] / result["tpot_s"]
        assert result["output_tokens_per_s"] == pytest.approx(rate, rel=0.5)
    assert facts["results"][0]["expected_experts"] == 1


def test_fewer_layers(bench: Callable[..., dict[str, Any]]) -> None:
    arguments = ("--load-format", "dummy", "--concurrency", "1", "--repeats", "1")
    facts = bench("--layers", "4", *arguments, num_hidden_layers=8)
    assert (facts["layers"], facts["layers_of_model"]) == (4, 8)
    facts = bench("--layers", "fit", *arguments, num_hidden_layers=8)
    assert (facts["layers"], facts["layers_of_model"]) == (8, 8)


def test_what_does_not_fit_is_said(bench: Callable[..., dict[str, Any]]) -> None:
    facts = bench("--context", "500", "--concurrency", "1", "200", "--repeats", "1")
    first, second = facts["results"]
    assert first["tpot_s"] > 0
    assert second["note"].startswith("does not fit: the cache lacks")
    facts = bench("--context", "500", "--concurrency", "1", "--budget", "0")
    assert facts["results"][0]["note"] == "skipped: the time is spent"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--layers 4", "add --load-format dummy"),
        ("--layers 3 --load-format dummy", "must be a multiple of 4"),
        ("--context 10", "the least is 11"),
        ("--context 1K", "--context is 1024; the longest context is 512"),
        ("--input-len 600", "--input-len plus --output-len is 605"),
        ("--context 100 --concurrency 257", "--max-num-seqs is 256"),
    ],
)
def test_what_cannot_be_is_refused(
    tiny_checkpoint: Callable[..., Path],
    capsys: pytest.CaptureFixture[str],
    arguments: str,
    message: str,
) -> None:
    model = str(tiny_checkpoint("scout"))
    assert main(["bench", "engine", model, *SMALL, *arguments.split()]) == 2
    assert message in capsys.readouterr().err


def test_standing_requests_read_what_computed_ones_would(
    tiny_checkpoint: Callable[..., Path],
) -> None:
    """Over the keys and values of a real prefill, in the same pages, the same tokens follow."""
    runner = load(tiny_checkpoint("scout"))
    computed, made_up = (
        Scheduler(runner.layout, runner.num_pages, SchedulerConfig(max_num_batched_tokens=1000))
        for _ in range(2)
    )
    standing = Standing(made_up, runner.layout, runner.vocab_size)
    standing.fill([20, 75, 33], max_tokens=8)
    sampling = Sampling(max_tokens=8, temperature=0.0)
    for rid, tokens in enumerate(standing.tokens.values()):
        computed.add(Generate(rid, tokens[:-1], sampling))
    first, second = computed.schedule(), computed.schedule()
    assert first is not None
    assert second is not None
    drawn = [runner.launch(plan).result().sampled for plan in (first, second)]
    runner.launch(StepPlan(0, [0, 1, 2], [], []))
    for tokens, sampled in zip(standing.tokens.values(), by_rid(drawn[0]), strict=True):
        tokens[-1] = sampled.token
    _, primed = standing.first_plan()
    again = runner.launch(primed).result().sampled
    assert [each.token for each in by_rid(again)] == [each.token for each in by_rid(drawn[1])]


def by_rid(sampled: list[Sampled]) -> list[Sampled]:
    return sorted(sampled, key=lambda each: each.rid)


def test_filled_pages_are_random(tiny_checkpoint: Callable[..., Path]) -> None:
    runner = load(tiny_checkpoint("scout"))
    for cache in runner.caches:
        cache.k_PBKD.fill_(float("nan"))
        cache.v_PBKD.fill_(float("nan"))
    fill_pages(runner, 7)
    for cache in runner.caches:
        for pages in (cache.k_PBKD, cache.v_PBKD):
            assert pages[:7].std().item() == pytest.approx(1, rel=0.2)
            assert torch.isnan(pages[7:]).all()
