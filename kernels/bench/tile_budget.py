"""How long a stream waits for its next token while a large picture arrives beside it.

    python kernels/bench/tile_budget.py --json kernels/bench/results/tile-budget.json

A small model with tiles of the real size decodes one request; then another brings a picture of 16
tiles and the global one. For several limits of tiles per step: the longest step, over that of a
prompt of as many tokens without a picture, in the same run; and the picture's time to first token.
A step with T tiles does T times the work of `vision.tile_flops` on top of its tokens, so the
longest step grows with the limit until a step's tokens show no more tiles: 512 tokens show 4.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import time
from pathlib import Path
from statistics import median
from typing import NamedTuple

from caravan.worker import environment

environment.prepare()

from results_file import write_results

from caravan.config import CacheConfig, EngineConfig, ModelConfig, SchedulerConfig
from caravan.engine.engine import Engine
from caravan.messages import Generate, Image, PlacedImage, Sampling
from caravan.scheduling.scheduler import Scheduler
from caravan.worker.runner import Runner

MODEL = Path(__file__).parent / "models" / "small-tiles"
BUDGETS = (1, 2, 4, 17)
GRID_TILES = 17
TILE_BYTES = 3 * 336 * 336
STRIDE = 145  # tokens from tile to tile: 144 patches and a separator


class Times(NamedTuple):
    """Seconds."""

    longest_step: float
    first_token: float


_ids = itertools.count()


def run(runner: Runner, tile_budget: int, *, picture: bool) -> Times:
    """One stream, and beside it a prompt of so many tokens, with a new picture or without."""
    config = SchedulerConfig(max_num_batched_tiles=tile_budget).resolved("cpu")
    engine = Engine(runner, Scheduler(runner.layout, runner.num_pages, config, runner.tile_slots))
    greedy = Sampling(max_tokens=400, temperature=0.0)
    stream = next(_ids)
    engine.add(Generate(stream, [1, 2, 3], greedy))
    for _ in range(5):
        engine.step()
    images = []
    if picture:
        image_id = next(_ids)
        tiles = [bytes([image_id % 251, i]) * (TILE_BYTES // 2) for i in range(GRID_TILES)]
        engine.add_image(Image(image_id, image_id.to_bytes(8), tiles, num_requests=1))
        images = [PlacedImage(image_id, [i * STRIDE for i in range(GRID_TILES)])]
    rid = next(_ids)
    engine.add(Generate(rid, [5] * (GRID_TILES * STRIDE), greedy, images))
    began = last = time.perf_counter()
    longest = 0.0
    while True:
        output = engine.step()
        now = time.perf_counter()
        longest, last = max(longest, now - last), now
        assert output is not None
        if any(delta.rid == rid for delta in output.deltas):
            break
    engine.abort(stream)
    engine.abort(rid)
    return Times(longest, now - began)


def main() -> None:
    """Prints a line per limit; medians over the repeats, pictures and texts in turn."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    config = EngineConfig(
        model=ModelConfig(max_model_len=4096, load_format="dummy"),
        cache=CacheConfig(kv_cache_memory_bytes=1 << 28),
    )
    runner = Runner(config, MODEL, lambda progress: None)
    run(runner, 4, picture=True)
    results = []
    for budget in BUDGETS:
        pairs = [
            (run(runner, budget, picture=True), run(runner, budget, picture=False))
            for _ in range(arguments.repeats)
        ]
        figures = {
            "tiles_per_step": budget,
            "longest_step_ms": 1e3 * median(seen.longest_step for seen, _ in pairs),
            "ratio_to_text": median(a.longest_step / b.longest_step for a, b in pairs),
            "first_token_ms": 1e3 * median(seen.first_token for seen, _ in pairs),
            "first_token_ratio_to_text": median(a.first_token / b.first_token for a, b in pairs),
        }
        results.append(figures)
        sys.stdout.write(
            f"{budget:3} tiles per step: longest step {figures['longest_step_ms']:6.0f} ms, "
            f"{figures['ratio_to_text']:.2f} of text's; first token "
            f"{figures['first_token_ms']:6.0f} ms, {figures['first_token_ratio_to_text']:.2f} of "
            "text's\n"
        )
        sys.stdout.flush()
    write_results(arguments.json, results=results)


if __name__ == "__main__":
    main()
