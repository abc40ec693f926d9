"""One device: loads the model, or its part, and turns each StepPlan into sampled tokens."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from caravan.config import EngineConfig
from caravan.messages import Progress, Sampled, StepPlan, StepResult, TokenMasks
from caravan.model.llama4 import Llama4
from caravan.model.parallel import TensorParallel
from caravan.model.weights import fill_dummy, load_weights
from caravan.worker.batch import StepLayout, StepMemory, lay_out, step_input
from caravan.worker.decode_graphs import Capture, CudaCapture, DecodeGraphs, graph_sizes
from caravan.worker.fitting import fit
from caravan.worker.group import Group
from caravan.worker.kv_cache import allocate_arena, layer_caches
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
        self,
        config: EngineConfig,
        directory: Path,
        report: Callable[[Progress], None],
        group: Group | None = None,
    ) -> None:
        """All ranks of a `group` do this, and each step, together."""
        fitted = fit(config, directory, group)
        architecture, device, cache = fitted.architecture, fitted.device, fitted.cache
        self.layout = fitted.layout
        self.num_pages = cache.num_pages
        self.max_model_len = cache.max_model_len
        self.tile_slots = cache.tile_slots
        self.vocab_size = architecture.vocab_size
        self.dtype = fitted.dtype_name
        self.device = str(device)
        self.fingerprint = fitted.fingerprint
        self._device = device
        self._num_seats = config.scheduler.max_num_seqs
        self._tensors = group.tensors(device, fitted.dtype) if group else TensorParallel()
        self._model = Llama4(
            architecture,
            dtype=fitted.dtype,
            device=device,
            max_model_len=self.max_model_len,
            group=self._tensors,
        )
        self._load(config, directory, report)
        kv_heads = self._tensors.share(architecture.num_kv_heads)
        arena = allocate_arena(
            (kv_heads, architecture.head_dim), self.layout, self.num_pages, fitted.dtype, device
        )
        self.caches = layer_caches(architecture, self.layout, arena)
        self._staging = Staging(device)
        self._tiles: TileArena | None = None
        if cache.tile_slots is not None:
            self._tiles = TileArena(
                self._model, cache.tile_slots, fitted.dtype, device, self._staging
            )
        self._requests = Requests(self.layout, self.num_pages, self._num_seats, device)
        self._sampler = Sampler(self.vocab_size, self._num_seats, self._staging, self._tensors)
        self._memory = StepMemory(
            layout=self.layout,
            num_kv_heads=kv_heads,
            requests=self._requests,
            last_token_R=torch.zeros(self._num_seats + 1, dtype=torch.int64, device=device),
            tiles=self._tiles,
        )
        self._graphs: DecodeGraphs | None = None
        self._warm_up(config, report)
        if group:
            group.least(0)  # all have come so far; from now on none may be late
            self._tensors.timeout = group.timeout

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
            rank=self._tensors.rank,
            size=self._tensors.size,
        )

    def _warm_up(self, config: EngineConfig, report: Callable[[Progress], None]) -> None:
        """Everything that is compiled or captured is so before the first user comes."""
        tokens = config.scheduler.resolved(self.device).max_num_batched_tokens or 1
        longest = 1 if self.device == "cpu" else min(tokens, self.max_model_len)
        plans = warm_up_plans(self.layout, self.num_pages, longest)
        for done, plan in enumerate(plans):
            report(Progress("warm-up", done, len(plans), "steps"))
            self._launch(plan).result()
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
            torch.empty(self._num_seats, self._tensors.share(self.vocab_size), device=self._device),
            self._staging,
        )

    def launch(self, plan: StepPlan, masks: Callable[[], TokenMasks] | None = None) -> LaunchedStep:
        """See engine.executor.Executor.launch."""
        return self._launch(plan, masks)

    def rest(self) -> None:
        """See engine.executor.Executor.rest."""

    def close(self) -> None:
        """See engine.executor.Executor.close."""

    @torch.inference_mode()
    def _launch(
        self, plan: StepPlan, masks: Callable[[], TokenMasks] | None = None
    ) -> LaunchedStep:
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
        logits_SP, scores = self._compute(step)
        rids = [segment.rid for segment in plan.segments if segment.samples]
        if not rids:
            return LaunchedStep([], None, scores)
        row_masks = _row_masks(masks(), rids) if masks else None
        return LaunchedStep(rids, self._draw(rids, logits_SP, row_masks), scores)

    def _draw(self, rids: list[int], logits_SP: Tensor, masks: RowMasks | None) -> Drawn:
        seats_S = np.array([self._requests[rid].seat for rid in rids])
        drawn = self._sampler.draw(seats_S, logits_SP, masks)
        # -1 marks broken logits, which the host will see; the next step must not read row -1
        seats = self._staging.send({"seats": seats_S})["seats"]
        self._memory.last_token_R[seats] = drawn.token_S.clamp(min=0)
        return drawn

    def _compute(self, step: StepLayout) -> tuple[Tensor, Scores | None]:
        """The logits fp32 [S, P] of the rows that sample, and the scores of prompts.

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

    def _forward(self, sent: Mapping[str, Tensor], num_rows: int, logits_SP: Tensor) -> None:
        """A step of single tokens, as it is captured."""
        self._model(step_input(sent, num_rows, self._memory), self.caches, logits_SP)


def _row_masks(masks: TokenMasks, rids: list[int]) -> RowMasks | None:
    """The masks of the rows that draw for these requests."""
    if not masks.rids:
        return None
    row_of = {rid: row for row, rid in enumerate(rids)}
    words = np.frombuffer(masks.words, np.int32).reshape(len(masks.rids), -1).copy()  # writable
    return RowMasks(np.array([row_of[rid] for rid in masks.rids]), words)
