"""One device: loads the model, and turns each StepPlan into sampled tokens."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import torch

import caravan
from caravan.config import EngineConfig
from caravan.messages import Admission, Progress, Sampling, Segment, StepPlan, StepResult
from caravan.model.architecture import Architecture
from caravan.model.footprint import footprint
from caravan.model.llama4 import Llama4
from caravan.model.manifest import served_architecture
from caravan.model.weights import fill_dummy, load_weights
from caravan.worker.batch import build_step
from caravan.worker.device import pick_device
from caravan.worker.kv_cache import allocate_arena, layer_caches
from caravan.worker.memory import free_memory, plan_cache
from caravan.worker.requests import RequestState
from caravan.worker.sampler import Sampler
from caravan.worker.tile_arena import TileArena


class Runner:
    """The model with its cache on one device. Raises ConfigError for what cannot be loaded."""

    def __init__(
        self, config: EngineConfig, directory: Path, report: Callable[[Progress], None]
    ) -> None:
        architecture = served_architecture(directory, config.model.load_format)
        device = pick_device(config.model.device)
        dtype_name = architecture.dtype if config.model.dtype == "auto" else config.model.dtype
        dtype: torch.dtype = getattr(torch, dtype_name)
        size = footprint(architecture, dtype=dtype_name, block_len=config.cache.block_size)
        memory = plan_cache(config, size, free_memory(config, device))
        self.layout = size.layout
        self.num_pages = memory.num_pages
        self.max_model_len = memory.max_model_len
        self.tile_slots = memory.tile_slots
        self.vocab_size = architecture.vocab_size
        self.dtype = dtype_name
        self.device = str(device)
        self.fingerprint = _fingerprint(architecture, directory, dtype_name, device.type)
        self._device = device
        self._model = Llama4(
            architecture, dtype=dtype, device=device, max_model_len=self.max_model_len
        )
        self._load(config, directory, report)
        arena = allocate_arena(architecture, self.layout, self.num_pages, dtype, device)
        self._caches = layer_caches(architecture, self.layout, arena)
        self._tiles: TileArena | None = None
        if memory.tile_slots is not None:
            self._tiles = TileArena(self._model, memory.tile_slots, dtype, device)
        self._requests: dict[int, RequestState] = {}
        self._sampler = Sampler(architecture.vocab_size, device)
        report(Progress("warm-up", 0, 1, "steps"))
        self._warm_up()
        report(Progress("warm-up", 1, 1, "steps"))

    def _load(
        self, config: EngineConfig, directory: Path, report: Callable[[Progress], None]
    ) -> None:
        parameters = dict(self._model.named_parameters())
        if config.model.load_format == "dummy":
            fill_dummy(parameters, config.model.seed)
            return
        load_weights(
            parameters,
            directory,
            self._model.architecture,
            lambda done, total: report(Progress("weights", done, total, "bytes")),
        )

    def _warm_up(self) -> None:
        """One token through everything that is compiled, so that no user waits for it."""
        rid, blocks = -1, range(self.layout.pages_held(1))
        request = Admission(rid, [0], 1, Sampling(max_tokens=1, temperature=0.0))
        full = list(blocks[: self.layout.full_slices])
        chunked = list(blocks[self.layout.full_slices :])
        self.run(StepPlan(0, [], [request], [Segment(rid, 0, 1, full, chunked, samples=True)]))
        self.run(StepPlan(0, [rid], [], []))

    def run(self, plan: StepPlan) -> StepResult:
        """Does what the plan says; one entry per sampling segment, in the plan's order."""
        for rid in plan.released:
            del self._requests[rid]
            self._sampler.release(rid)
        for admission in plan.admitted:
            self._requests[admission.rid] = RequestState(admission, self.layout)
            self._sampler.admit(admission)
        if not plan.segments:
            return StepResult([])
        if plan.tiles:
            assert self._tiles is not None, "the model sees no pictures"
            self._tiles.encode(plan.tiles)
        step = build_step(plan.segments, self._requests, self.layout, self._device, self._tiles)
        logits_SV = self._model(step, self._caches)
        rids = [segment.rid for segment in plan.segments if segment.samples]
        sampled = self._sampler.sample(rids, logits_SV) if rids else []
        for each in sampled:
            self._requests[each.rid].append_token(each.token)
        return StepResult(sampled)


def _fingerprint(architecture: Architecture, directory: Path, dtype: str, device: str) -> str:
    """Of everything that could change the tokens of the same request."""
    weights = sorted((p.name, p.stat().st_size) for p in directory.glob("*.safetensors"))
    facts = (caravan.__version__, torch.__version__, architecture, weights, dtype, device)
    return "fp_" + hashlib.sha256(repr(facts).encode()).hexdigest()[:12]
