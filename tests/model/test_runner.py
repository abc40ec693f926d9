"""The worker as a whole: seeds in any batch, types, refusals."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from caravan.config import CacheConfig, EngineConfig, ModelConfig
from caravan.engine.engine import Engine
from caravan.errors import ConfigError
from caravan.messages import Progress, Sampling
from caravan.worker.runner import Runner
from in_process import complete, load, new_engine

PROMPT = [3, 1, 4, 1, 5, 9, 2, 6]


@pytest.fixture(scope="module")
def scout(tiny_checkpoint: Callable[..., Path]) -> Path:
    return tiny_checkpoint("scout")


def seeded(seed: int) -> Sampling:
    return Sampling(max_tokens=60, seed=seed, temperature=0.9, top_p=0.95, top_k=80)


def test_a_seed_gives_the_same_tokens_alone_in_a_batch_and_after_preemptions(scout: Path) -> None:
    runner = load(scout)
    alone = complete(new_engine(runner), [PROMPT], seeded(7))[0].tokens
    others = [[i] * (5 * i + 1) for i in range(1, 12)]
    samplings = [seeded(7), *(seeded(i) for i in range(100, 111))]
    batch = complete(new_engine(runner), [PROMPT, *others], samplings)
    assert batch[0].tokens == alone
    num_pages = int(1.2 * runner.layout.pages_needed(120))
    small: Engine = new_engine(runner, num_pages=num_pages, budget=11)
    # last, so that it is the one that is preempted
    squeezed = complete(small, [*others, PROMPT], [*samplings[1:], seeded(7)])
    assert small.stats.preemptions > 0
    assert squeezed[-1].tokens == alone


def test_another_seed_gives_other_tokens(scout: Path) -> None:
    engine = new_engine(load(scout))
    first, second = complete(engine, [PROMPT, PROMPT], [seeded(1), seeded(2)])
    assert first.tokens != second.tokens


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_low_precision_stays_close_to_fp32(scout: Path, dtype: str) -> None:
    greedy = Sampling(max_tokens=1, temperature=0.0, logprobs=3)
    exact = complete(new_engine(load(scout)), [PROMPT], greedy)[0]
    config = EngineConfig(
        model=ModelConfig(dtype=dtype, device="cpu"),  # type: ignore[arg-type]
        cache=CacheConfig(kv_cache_memory_bytes=1 << 20),
    )
    runner = Runner(config, scout, lambda progress: None)
    assert runner.dtype == dtype
    low = complete(new_engine(runner), [PROMPT], greedy)[0]
    assert low.tokens == exact.tokens
    assert low.logprobs[0].logprob == pytest.approx(exact.logprobs[0].logprob, abs=0.3)


def test_dummy_weights_need_only_the_configuration(scout: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes((scout / "config.json").read_bytes())
    config = EngineConfig(
        model=ModelConfig(load_format="dummy", device="cpu"),
        cache=CacheConfig(kv_cache_memory_bytes=1 << 20),
    )
    runner = Runner(config, tmp_path, lambda progress: None)
    assert len(complete(new_engine(runner), [PROMPT], seeded(1))[0].tokens) == 60


def test_a_text_only_export_of_a_multimodal_model_reads_text(
    tiny_checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    """Its config.json still speaks of a vision encoder."""
    whole = tiny_checkpoint("scout", multimodal=True)
    (tmp_path / "config.json").write_bytes((whole / "config.json").read_bytes())
    weights = load_file(whole / "model.safetensors")
    text = {name: tensor for name, tensor in weights.items() if name.startswith("language_model.")}
    assert 0 < len(text) < len(weights)
    save_file(text, tmp_path / "model.safetensors")
    with_eyes, without = load(whole), load(tmp_path)
    assert with_eyes.tile_slots is not None
    assert without.tile_slots is None
    outputs = [
        complete(new_engine(runner), [PROMPT], seeded(1))[0] for runner in (with_eyes, without)
    ]
    assert outputs[0].tokens == outputs[1].tokens


def test_progress_ends_where_it_said(scout: Path) -> None:
    seen: list[Progress] = []
    config = EngineConfig(cache=CacheConfig(kv_cache_memory_bytes=1 << 20))
    Runner(config, scout, seen.append)
    weights = [progress for progress in seen if progress.phase == "weights"]
    assert [p.done for p in weights] == sorted(p.done for p in weights)
    assert weights[-1].done == weights[-1].total
    (file,) = scout.glob("*.safetensors")  # the rest of the file is its header
    assert 0.9 * file.stat().st_size < weights[-1].total < file.stat().st_size


def test_the_fingerprint_changes_with_the_type(scout: Path) -> None:
    exact = load(scout)
    config = EngineConfig(
        model=ModelConfig(dtype="bfloat16"), cache=CacheConfig(kv_cache_memory_bytes=1 << 20)
    )
    assert exact.fingerprint == load(scout).fingerprint
    assert exact.fingerprint != Runner(config, scout, lambda progress: None).fingerprint


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_cuda_without_a_gpu_is_refused(scout: Path) -> None:
    config = EngineConfig(model=ModelConfig(device="cuda"))
    with pytest.raises(ConfigError, match="--device is cuda and PyTorch finds no GPU"):
        Runner(config, scout, lambda progress: None)
