"""`caravan bench engine` without a model: floors, layers, and requests that stand at a context."""

from __future__ import annotations

import argparse
import importlib.util
import json
import random
from pathlib import Path
from types import ModuleType

import pytest

from caravan.cli import bench
from caravan.cli.bench_context import HeldPages, Standing, missing_pages, spread
from caravan.cli.bench_layers import layer_period, most_layers, shortened, write_shortened
from caravan.cli.bench_runs import Workload
from caravan.cli.flags import Parser
from caravan.config import CacheConfig, EngineConfig, SchedulerConfig
from caravan.errors import ConfigError
from caravan.kv_layout import KVLayout
from caravan.messages import Sampled, Segment, StepPlan, StepResult
from caravan.model.architecture import Architecture
from caravan.model.decode_floor import decode_bytes, hit_experts
from caravan.model.footprint import footprint
from caravan.scheduling.scheduler import Scheduler

ROOT = Path(__file__).parents[3]
MODEL = ROOT / "kernels/bench/models/llama4-scout"
ROOFLINE = ROOT.parent / "shared/reference/roofline.py"  # not in every checkout
SCOUT = Architecture.from_directory(MODEL)
MAVERICK = Architecture.from_config(
    {"model_type": "llama4_text", "num_local_experts": 128, "interleave_moe_layer_step": 2}
)
GIB = 1 << 30


def parse(line: str) -> argparse.Namespace:
    parser = Parser(prog="caravan")
    bench.add_parser(parser.add_subparsers())
    return parser.parse_args(["bench", "engine", *line.split()])


class TestArguments:
    def test_without_any_prompts_of_256_tokens(self) -> None:
        assert bench.workloads(parse("")) == [
            Workload(1, 64, input_len=256),
            Workload(8, 64, input_len=256),
        ]

    def test_every_number_of_requests_at_every_context(self) -> None:
        line = "--concurrency 1 64 --context 1K 4096 --output-len 16"
        assert bench.workloads(parse(line)) == [
            Workload(1, 16, context=1024),
            Workload(64, 16, context=1024),
            Workload(1, 16, context=4096),
            Workload(64, 16, context=4096),
        ]

    @pytest.mark.parametrize(
        ("line", "message"),
        [
            ("--input-len 0", "--input-len must be at least 1"),
            ("--concurrency 0", "--concurrency must be at least 1"),
            ("--context 1G", "--context is 1G"),
            ("--context K", "--context is K"),
            ("--context 1K --input-len 5", "exclude each other"),
        ],
    )
    def test_what_cannot_be_is_refused(self, line: str, message: str) -> None:
        with pytest.raises(ConfigError, match=message):
            bench.workloads(parse(line))

    def test_layers_are_a_number_or_fit(self) -> None:
        with pytest.raises(ConfigError, match="--layers is few"):
            bench.run(parse("--layers few"))


@pytest.fixture(scope="module")
def roofline() -> ModuleType:
    if not ROOFLINE.exists():
        pytest.skip("shared/ is not beside this checkout")
    spec = importlib.util.spec_from_file_location("roofline", ROOFLINE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class TestFloor:
    # what the roofline leaves out: norms, and two vectors more than it counts
    TOLERANCE = 1e-4

    @pytest.mark.parametrize("num_layers", [48, 20, 4])
    @pytest.mark.parametrize("batch", [1, 8, 64, 256])
    @pytest.mark.parametrize("context", [1024, 8192, 12288])
    def test_it_is_the_rooflines(
        self, roofline: ModuleType, num_layers: int, batch: int, context: int
    ) -> None:
        shape = vars(roofline.MODELS["scout"])
        model = roofline.Model(
            *("Scout", num_layers, shape["d"], shape["h"], shape["kvh"], shape["hd"]),
            *(8192, shape["E"], 1, 16384, shape["vocab"], 4, shape["chunk"]),
        )
        bandwidth = 4e12
        memory_only = {"bw": bandwidth, "bf16": 1e30, "fp8": 1e30, "gap": 0.0}
        step = roofline.decode(model, memory_only, "bf16", "bf16", batch, context, ar=False)
        architecture = shortened(SCOUT, num_layers)
        size = footprint(architecture, dtype="bfloat16", block_len=16)
        # beyond a chunk the roofline takes the average position in it, 4096.5: 12288 is at 4096
        floor_s = decode_bytes(size, architecture, [context] * batch) / bandwidth
        assert floor_s == pytest.approx(step["t"], rel=self.TOLERANCE)

    def test_mavericks_dense_layers_count(self, roofline: ModuleType) -> None:
        memory_only = {"bw": 4e12, "bf16": 1e30, "fp8": 1e30, "gap": 0.0}
        model = roofline.MODELS["maverick"]
        step = roofline.decode(model, memory_only, "bf16", "bf16", 64, 1024, ar=False)
        size = footprint(MAVERICK, dtype="bfloat16", block_len=16)
        floor_s = decode_bytes(size, MAVERICK, [1024] * 64) / 4e12
        assert floor_s == pytest.approx(step["t"], rel=self.TOLERANCE)

    def test_the_vision_encoder_is_not_read(self) -> None:
        size = footprint(SCOUT, dtype="bfloat16", block_len=16)
        assert size.weight_bytes["vision"] > 1e9
        text = Architecture.from_config(
            json.loads((MODEL / "config.json").read_text())["text_config"]
        )
        without = footprint(text, dtype="bfloat16", block_len=16)
        assert decode_bytes(size, SCOUT, [100]) == decode_bytes(without, text, [100])

    def test_more_tokens_hit_more_experts(self) -> None:
        assert hit_experts(16, 1) == 1
        assert hit_experts(16, 10_000) == pytest.approx(16)
        assert hit_experts(0, 5) == 0
        source = random.Random(0)
        drawn = [len({source.randrange(16) for _ in range(8)}) for _ in range(4000)]
        assert hit_experts(16, 8) == pytest.approx(sum(drawn) / len(drawn), rel=0.01)


class TestLayers:
    def test_periods(self) -> None:
        assert layer_period(SCOUT) == 4
        assert layer_period(MAVERICK) == 4
        odd = {"num_hidden_layers": 5, "no_rope_layers": [1, 0, 1, 1, 0]}
        assert layer_period(Architecture.from_config({"model_type": "llama4_text", **odd})) == 5

    @pytest.mark.parametrize("count", [0, 6, 52])
    def test_only_whole_periods(self, count: int) -> None:
        with pytest.raises(ConfigError, match=f"--layers is {count}; it must be a multiple of 4"):
            shortened(SCOUT, count)

    @pytest.mark.parametrize(("gib", "layers"), [(140 * 0.9, 20), (79 * 0.9, 8), (10_000, 48)])
    def test_as_many_as_fit_beside_a_quarter(self, gib: float, layers: int) -> None:
        free = int(gib * GIB)
        assert most_layers(SCOUT, EngineConfig(), "cpu", free) == layers
        size = footprint(shortened(SCOUT, layers), dtype="bfloat16", block_len=16)
        assert size.total_weight_bytes + (1 << 28) <= free - free // 4

    def test_a_cache_of_a_given_size_decides(self) -> None:
        config = EngineConfig(cache=CacheConfig(kv_cache_memory_bytes=2 * GIB))
        assert most_layers(SCOUT, config, "cpu", 126 * GIB) == 28

    def test_less_than_a_period_is_refused(self) -> None:
        with pytest.raises(ConfigError, match="--layers is fit; 4 layers take"):
            most_layers(SCOUT, EngineConfig(), "cpu", 20 * GIB)

    def test_a_shortened_directory_is_the_shortened_model(self, tmp_path: Path) -> None:
        write_shortened(MODEL, 8, tmp_path)
        assert Architecture.from_directory(tmp_path) == shortened(SCOUT, 8)

    def test_lists_of_layers_are_cut(self, tmp_path: Path) -> None:
        source, target = tmp_path / "source", tmp_path / "target"
        source.mkdir()
        target.mkdir()
        config = {
            "model_type": "llama4_text",
            "num_hidden_layers": 8,
            "no_rope_layers": [1, 1, 1, 0] * 2,
            "layer_types": (["chunked_attention"] * 3 + ["full_attention"]) * 2,
            "moe_layers": [1, 3, 5, 7],
        }
        (source / "config.json").write_text(json.dumps(config))
        write_shortened(source, 4, target)
        assert Architecture.from_directory(target) == shortened(
            Architecture.from_directory(source), 4
        )


LAYOUT = KVLayout(
    block_len=4, chunk_len=16, full_slices=1, chunked_slices=3, slice_layers=1, page_bytes=1
)
Tables = dict[int, tuple[list[int], list[int]]]


class Recording(Scheduler):
    """A scheduler whose plans are kept."""

    def __init__(self, num_pages: int, budget: int) -> None:
        config = SchedulerConfig(max_num_seqs=40, max_num_batched_tokens=budget)
        super().__init__(LAYOUT, num_pages, config)
        self.plans: list[StepPlan] = []

    def schedule(self) -> StepPlan | None:
        plan = super().schedule()
        if plan is not None:
            self.plans.append(plan)
        return plan


def tables(plans: list[StepPlan]) -> Tables:
    """What a worker that sees every plan has in its page tables."""
    result: Tables = {}
    segments = (segment for plan in plans for segment in sorted(plan.segments, key=_start))
    for segment in segments:
        full, chunked = result.setdefault(segment.rid, ([], []))
        if segment.start % LAYOUT.chunk_len == 0:
            chunked.clear()
        full += segment.full_pages
        chunked += segment.chunked_pages
    return result


def _start(segment: Segment) -> int:
    return segment.start


class TestStanding:
    @pytest.mark.parametrize("contexts", [[5], [16, 17, 15], [90, 33, 64, 48], [160]])
    @pytest.mark.parametrize("budget", [7, 64, 1000])
    def test_the_worker_gets_the_pages_of_all_tokens(
        self, contexts: list[int], budget: int
    ) -> None:
        scheduler = Recording(400, budget)
        standing = Standing(scheduler, LAYOUT, vocab_size=50)
        standing.fill(contexts, max_tokens=6)
        plan, primed = standing.first_plan()
        assert tables([primed]) == tables(scheduler.plans)
        assert [segment.start + 1 for segment in primed.segments] == [
            len(standing.tokens[segment.rid]) for segment in primed.segments
        ]
        assert all(segment.length == 1 and segment.samples for segment in primed.segments)
        admitted = {admission.rid: admission for admission in primed.admitted}
        assert {rid: a.tokens for rid, a in admitted.items()} == standing.tokens
        assert [a.num_prompt for a in admitted.values()] == [context - 1 for context in contexts]
        assert plan.admitted == []
        scheduler.check_invariants()

    def test_inside_a_chunk_all_stand_exactly_there(self) -> None:
        scheduler = Recording(400, budget=1000)
        standing = Standing(scheduler, LAYOUT, vocab_size=50)
        standing.fill([16, 9, 16], max_tokens=6)
        assert [len(tokens) for tokens in standing.tokens.values()] == [16, 9, 16]
        assert len(scheduler.plans) == 1

    def test_the_worker_forgets_the_requests_before(self) -> None:
        scheduler = Recording(400, budget=1000)
        first = Standing(scheduler, LAYOUT, vocab_size=50)
        first.fill([20, 20], max_tokens=6)
        plan, _ = first.first_plan()
        scheduler.update(plan, _drawn(plan))
        for rid in first.tokens:
            scheduler.abort(rid)
        second = Standing(scheduler, LAYOUT, vocab_size=50)
        second.fill([100], max_tokens=6)
        _, primed = second.first_plan()
        assert primed.released == list(first.tokens)

    def test_every_page_held_is_filled(self) -> None:
        held = HeldPages(LAYOUT)
        assert held.most_page() == -1
        held.take(Segment(1, 0, 4, [7], [1, 2, 9], samples=False))
        held.take(Segment(2, 0, 4, [8], [3, 4, 5], samples=False))
        assert held.most_page() == 9

    @pytest.mark.parametrize("ends", [[16], [64, 64, 33], [160, 15], [16] * 40])
    def test_exactly_so_many_pages_are_enough(self, ends: list[int]) -> None:
        """Nobody is preempted, and inside a chunk nobody begins later than the others."""
        num_pages = missing_pages(LAYOUT, 0, ends)
        scheduler = Recording(num_pages, sum(ends))
        Standing(scheduler, LAYOUT, vocab_size=50).fill([end - 5 for end in ends], max_tokens=5)
        if max(ends) <= LAYOUT.chunk_len:
            assert len(scheduler.plans) == 1
        assert missing_pages(LAYOUT, num_pages, ends) == 0
        assert missing_pages(LAYOUT, num_pages - 1, ends) == 1


def _drawn(plan: StepPlan) -> StepResult:
    return StepResult([Sampled(segment.rid, 7) for segment in plan.segments if segment.samples])


@pytest.mark.parametrize("num_requests", [1, 2, 3, 64])
@pytest.mark.parametrize("context", [16384, 1 << 20])
def test_requests_beyond_a_chunk_see_half_a_chunk_on_average(
    context: int, num_requests: int
) -> None:
    ends = spread(context, num_requests, 8192)
    in_chunk = [(end - 1) % 8192 + 1 for end in ends]
    assert sum(in_chunk) / num_requests == pytest.approx(4096, abs=1)
    assert max(ends) <= context
