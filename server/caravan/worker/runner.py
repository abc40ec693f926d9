"""One device: loads the model, and turns each StepPlan into sampled tokens."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

import caravan
from caravan.config import EngineConfig
from caravan.messages import Progress, Sampled, StepPlan, StepResult, TokenMasks
from caravan.model.architecture import Architecture
from caravan.model.footprint import footprint
from caravan.model.llama4 import Llama4
from caravan.model.manifest import served_architecture
from caravan.model.weights import fill_dummy, load_weights
from caravan.worker.batch import StepLayout, StepMemory, lay_out, step_input
from caravan.worker.decode_graphs import Capture, CudaCapture, DecodeGraphs, graph_sizes
from caravan.worker.device import pick_device
from caravan.worker.kv_cache import allocate_arena, layer_caches
from caravan.worker.memory import free_memory, plan_cache
from caravan.worker.prompt_scores import Scores, score
from caravan.worker.requests import Requests
from caravan.worker.sampler import Drawn, RowMasks, Sampler
from caravan.worker.staging import Staging
from caravan.worker.tile_arena import TileArena
from caravan.worker.warm_up import warm_up_plans


@dataclass(frozen=True, slots=True)
class LaunchedStep:
    """See engine.executor.Launched."""

    rids: list[int]
    drawn: Drawn | None
    scores: Scores | None = None

    def result(self) -> StepResult:
        """Waits for the tokens."""
        scored = self.scores.result() if self.scores else []
        rows = self.drawn.result() if self.drawn else []
        broken = [rid for rid, (token, _) in zip(self.rids, rows, strict=True) if token < 0]
        assert not broken, ("NaN or +inf among the logits of", broken)
        sampled = [Sampled(rid, *row) for rid, row in zip(self.rids, rows, strict=True)]
        return StepResult(sampled, scored)


class Runner:
    """The model with its cache on one device. Raises ConfigError for what cannot be loaded."""

    def __init__(
        self, config: EngineConfig, directory: Path, report: Callable[[Progress], None]
    ) -> None:
        architecture = served_architecture(directory, config.model.load_format)
        device = pick_device(config.model.device)
        dtype_name = architecture.dtype if config.model.dtype == "auto" else config.model.dtype
        dtype: torch.dtype = getattr(torch, dtype_name)
        block_len = config.cache.block_len(device.type)
        size = footprint(architecture, dtype=dtype_name, block_len=block_len)
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
        self._num_seats = config.scheduler.max_num_seqs
        self._model = Llama4(
            architecture, dtype=dtype, device=device, max_model_len=self.max_model_len
        )
        self._load(config, directory, report)
        arena = allocate_arena(architecture, self.layout, self.num_pages, dtype, device)
        self.caches = layer_caches(architecture, self.layout, arena)
        self._staging = Staging(device)
        self._tiles: TileArena | None = None
        if memory.tile_slots is not None:
            self._tiles = TileArena(self._model, memory.tile_slots, dtype, device, self._staging)
        self._requests = Requests(self.layout, self.num_pages, self._num_seats, device)
        self._sampler = Sampler(architecture.vocab_size, self._num_seats, self._staging)
        self._memory = StepMemory(
            layout=self.layout,
            num_kv_heads=architecture.num_kv_heads,
            requests=self._requests,
            last_token_R=torch.zeros(self._num_seats + 1, dtype=torch.int64, device=device),
            tiles=self._tiles,
        )
        self._graphs: DecodeGraphs | None = None
        self._warm_up(config, report)

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

    def _warm_up(self, config: EngineConfig, report: Callable[[Progress], None]) -> None:
        """Everything that is compiled or captured is so before the first user comes."""
        tokens = config.scheduler.resolved(self.device).max_num_batched_tokens or 1
        longest = 1 if self.device == "cpu" else min(tokens, self.max_model_len)
        plans = warm_up_plans(self.layout, self.num_pages, longest)
        for done, plan in enumerate(plans):
            report(Progress("warm-up", done, len(plans), "steps"))
            self.launch(plan).result()
        report(Progress("warm-up", len(plans), len(plans), "steps"))
        if self._device.type == "cuda" and not config.model.enforce_eager:
            self.capture_decode(CudaCapture())

    @torch.inference_mode()
    def capture_decode(self, capture: Capture) -> None:
        """Steps that only decode are replayed from now on; `capture` runs what it is to repeat."""
        self._graphs = DecodeGraphs(
            graph_sizes(self._num_seats),
            self._forward,
            capture,
            torch.empty(self._num_seats, self.vocab_size, device=self._device),
            self._staging,
        )

    @torch.inference_mode()
    def launch(self, plan: StepPlan, masks: Callable[[], TokenMasks] | None = None) -> LaunchedStep:
        """See engine.executor.Executor.launch."""
        for rid in plan.released:
            self._sampler.release(self._requests.release(rid))
        for admission in plan.admitted:
            self._sampler.admit(self._requests.admit(admission).seat, admission)
        if not plan.segments:
            return LaunchedStep([], None)
        if plan.tiles:
            assert self._tiles is not None, "the model sees no pictures"
            self._tiles.encode(plan.tiles)
        tile_tokens = self._tiles.tile_tokens if self._tiles else 0
        step = lay_out(plan.segments, self._requests, self.layout, tile_tokens)
        self._requests.send_tables(self._staging)
        logits_SV, scores = self._compute(step)
        rids = [segment.rid for segment in plan.segments if segment.samples]
        if not rids:
            return LaunchedStep([], None, scores)
        row_masks = _row_masks(masks(), rids) if masks else None
        return LaunchedStep(rids, self._draw(rids, logits_SV, row_masks), scores)

    def _draw(self, rids: list[int], logits_SV: Tensor, masks: RowMasks | None) -> Drawn:
        seats_S = np.array([self._requests[rid].seat for rid in rids])
        drawn = self._sampler.draw(seats_S, logits_SV, masks)
        # -1 marks broken logits, which the host will see; the next step must not read row -1
        seats = self._staging.send({"seats": seats_S})["seats"]
        self._memory.last_token_R[seats] = drawn.token_S.clamp(min=0)
        return drawn

    def _compute(self, step: StepLayout) -> tuple[Tensor, Scores | None]:
        """The logits fp32 [S, V] of the rows that sample, and the scores of prompts.

        The logits are to be read before the next step is launched.
        """
        replayed = self._graphs.run(step) if self._graphs else None
        if replayed is not None:
            return replayed, None
        sent = self._staging.send(step.arrays)
        given = step_input(sent, step.num_decode, self._memory)
        if not step.scored:
            return self._model(given, self.caches), None
        token_K = sent["scored_tokens"]
        x_SH, x_KH = self._model.hidden(given, self.caches).tensor_split([-len(token_K)])
        return self._model.logits(x_SH), score(self._model, x_KH, token_K, step.scored)

    def _forward(self, sent: Mapping[str, Tensor], num_rows: int, logits_SV: Tensor) -> None:
        """A step of single tokens, as it is captured."""
        self._model(step_input(sent, num_rows, self._memory), self.caches, logits_SV)


def _row_masks(masks: TokenMasks, rids: list[int]) -> RowMasks | None:
    """The masks of the rows that draw for these requests."""
    if not masks.rids:
        return None
    row_of = {rid: row for row, rid in enumerate(rids)}
    words = np.frombuffer(masks.words, np.int32).reshape(len(masks.rids), -1).copy()  # writable
    return RowMasks(np.array([row_of[rid] for rid in masks.rids]), words)


def _fingerprint(architecture: Architecture, directory: Path, dtype: str, device: str) -> str:
    """Of everything that could change the tokens of the same request."""
    weights = sorted((p.name, p.stat().st_size) for p in directory.glob("*.safetensors"))
    facts = (caravan.__version__, torch.__version__, architecture, weights, dtype, device)
    return "fp_" + hashlib.sha256(repr(facts).encode()).hexdigest()[:12]
