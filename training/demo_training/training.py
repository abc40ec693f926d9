"""The loop, and what it keeps on disk so that it can go on after an interruption."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from caravan.text.tokenizer import Tokenizer
from caravan.tiles import TileLayout
from demo_training import mixture, shape
from demo_training.batches import Batch, Batches
from demo_training.encoding import Encoder
from demo_training.labels import NUM_LABELS, labelled_picture
from demo_training.network import Llama4
from demo_training.optimizer import optimizers

_WARM_UP = 30  # steps
_DECAY = 0.3  # the last part of a phase, in which the rate falls to nothing
_SAVE_EVERY_S = 120
_BALANCE = 0.01  # weight of the routers' imbalance
_SAMPLES = 40  # pictures that tell how large the encoder's rows are
_NO_LABEL = 0.2  # weight of tokens without a label beside others
_PLACE = 0.05  # weight of telling where in its tile a token is


def tile_layout() -> TileLayout:
    """How the demo cuts pictures."""
    vision = shape.VISION
    side = vision["image_size"] // vision["patch_size"] // 2
    return TileLayout(
        tile_size=vision["image_size"], tile_tokens=side**2, max_tiles=shape.MAX_TILES
    )


@dataclass(frozen=True, slots=True)
class Phase:
    """A stretch of training."""

    name: str
    steps: int
    rate: float
    num_tokens: int  # of a batch; of the vision phase: tiles
    makers: dict[mixture.Maker, float] | None = None  # None: the vision encoder's labels
    full_length_at: float = 0.6  # part of the phase from which texts have their full length


VISION = Phase("vision", 1300, 2e-3, 96)
JOINT = Phase("joint", 7000, 2e-3, 1400, mixture.ALL, 0.6)
PHASES = {phase.name: phase for phase in (VISION, JOINT)}


class Seeing(nn.Module):
    """The encoder and its projector, with a head that is thrown away.

    tiles -> logits of each token's label and of its place in the tile: [tokens, labels + places].
    """

    def __init__(self, model: Llama4) -> None:
        super().__init__()
        self.vision_model = model.vision_model
        self.multi_modal_projector = model.multi_modal_projector
        outputs = NUM_LABELS + tile_layout().tile_tokens
        self.head = nn.Linear(shape.TEXT["hidden_size"], outputs)
        self._model = [model]  # in a list: not a submodule

    def forward(self, tiles: Tensor) -> Tensor:
        seen = self._model[0].see(tiles)
        out: Tensor = self.head(F.rms_norm(seen, seen.shape[-1:])).flatten(0, 1)
        return out


class Trainer:
    """One phase of one model. `directory` keeps its state and the tokenizer."""

    def __init__(self, directory: Path, phase: Phase, seed: int = 0) -> None:
        torch.manual_seed(seed)
        self.phase = phase
        self.directory = directory
        self.model = Llama4(shape.TEXT, shape.VISION)
        self.layout = tile_layout()
        self.step = 0
        self._trained: nn.Module = self.model
        if phase.makers is None:
            self._trained = Seeing(self.model)
        else:
            self.model.vision_model.requires_grad_(False)
        self._optimizers = optimizers(self._trained, 1.0)
        self._seed = seed
        self._file = directory / f"{phase.name}.pt"
        if self._file.exists():
            self._resume()

    def start_from_vision(self) -> None:
        """Takes the encoder that the vision phase trained, unless this phase is under way.

        Its rows begin as large as words, outside the channels that copying needs.
        """
        if self.step:
            return
        state = torch.load(self.directory / f"{VISION.name}.pt", weights_only=True)["model"]
        kept = {name: value for name, value in state.items() if name.startswith("vision_model.")}
        self.model.load_state_dict(kept, strict=False)
        random = Random(self._seed)
        pictures = [labelled_picture(random, self.layout)[0] for _ in range(_SAMPLES)]
        self.model.shrink_rows(torch.from_numpy(np.concatenate(pictures)))

    def run(self, report: Callable[[str], None] = print) -> None:
        """Trains to the end of the phase."""
        saved = began = time.monotonic()
        losses: list[float] = []
        steps = self._losses()
        first = self.step
        while self.step < self.phase.steps:
            self._set_rate()
            loss = next(steps)
            loss.backward()
            average_gradients(self._trained)
            nn.utils.clip_grad_norm_(self._trained.parameters(), 1.0)
            for optimizer in self._optimizers:
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
            losses.append(loss.item())
            self.step += 1
            if self.step % 25 == 0:
                pace = (time.monotonic() - began) / (self.step - first)
                mean = sum(losses[-25:]) / 25
                report(f"{self.phase.name} step {self.step} loss {mean:.4f} {pace:.2f} s/step")
            if time.monotonic() - saved > _SAVE_EVERY_S:
                self.save()
                saved = time.monotonic()
        self.save()

    def save(self) -> None:
        """Writes the state beside the last one, then renames it."""
        if rank():
            return
        state = {
            "model": self.model.state_dict(),
            "trained": self._trained.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self._optimizers],
            "step": self.step,
        }
        scratch = self._file.with_suffix(".new")
        torch.save(state, scratch)
        scratch.rename(self._file)

    def _resume(self) -> None:
        state = torch.load(self._file, weights_only=True)
        self._trained.load_state_dict(state["trained"])
        self.model.load_state_dict(state["model"])
        for optimizer, saved in zip(self._optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.step = state["step"]

    def _set_rate(self) -> None:
        done = self.step / self.phase.steps
        factor = min(1.0, (self.step + 1) / _WARM_UP, max(1 - done, 0.02) / _DECAY)
        for optimizer, scale in zip(self._optimizers, (10.0, 1.0), strict=True):
            for group in optimizer.param_groups:
                group["lr"] = self.phase.rate * scale * factor

    def _losses(self) -> Iterator[Tensor]:
        random = Random(f"{self._seed} {self.phase.name} {self.step} {rank()}")
        if self.phase.makers is None:
            yield from self._seeing_losses(random)
            return
        size = shape.TEXT["vocab_size"]
        tokenizer = Tokenizer.from_directory(self.directory, size)
        batches = Batches(
            Encoder(tokenizer, self.layout),
            self.layout.tile_tokens,
            self.phase.makers,
            random,
            self.phase.num_tokens,
        )
        for batch in batches:
            done = self.step / self.phase.steps
            batches.length = min(1.0, done / self.phase.full_length_at) if done < 1 else 1.0
            yield self._loss(batch)

    def _loss(self, batch: Batch) -> Tensor:
        logits = self.model(batch.tokens_BT, batch.tiles, batch.patch_rows, batch.rows)
        return F.cross_entropy(logits, batch.targets) + _BALANCE * self.model.imbalance()

    def _seeing_losses(self, random: Random) -> Iterator[Tensor]:
        weights = torch.ones(NUM_LABELS)
        weights[0] = _NO_LABEL
        while True:
            tiles: list[Tensor] = []
            labels: list[Tensor] = []
            while len(tiles) < self.phase.num_tokens:
                cut, tokens = labelled_picture(random, self.layout)
                tiles += list(torch.from_numpy(cut.copy()))
                labels += list(torch.from_numpy(tokens))
            logits, places = self._trained(torch.stack(tiles)).split(
                [NUM_LABELS, self.layout.tile_tokens], dim=1
            )
            right = torch.arange(self.layout.tile_tokens).repeat(len(tiles))
            loss = F.cross_entropy(logits, torch.stack(labels).flatten().long(), weights)
            yield loss + _PLACE * F.cross_entropy(places, right)


def rank() -> int:
    """Which of the processes that train together this is."""
    return dist.get_rank() if dist.is_initialized() else 0


@torch.no_grad()
def average_gradients(model: nn.Module) -> None:
    """Over all processes that train together; each has its own batch."""
    if not dist.is_initialized():
        return
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for parameter in parameters:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    flat = torch.cat([p.grad.flatten() for p in parameters if p.grad is not None])
    dist.all_reduce(flat)
    flat /= dist.get_world_size()
    parts = flat.split([parameter.numel() for parameter in parameters])
    for parameter, part in zip(parameters, parts, strict=True):
        parameter.grad = part.view_as(parameter)
