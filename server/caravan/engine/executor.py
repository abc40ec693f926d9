"""What the engine needs of the thing that computes: `worker.runner.Runner`, or a fake in tests."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from caravan.kv_layout import KVLayout
from caravan.messages import StepPlan, StepResult, TokenMasks
from caravan.tiles import TileSlots


class Launched(Protocol):
    """A step that may still be computing."""

    def result(self) -> StepResult:
        """Waits for the step's tokens: one entry per sampling segment, in the plan's order."""


class Executor(Protocol):
    """A loaded model with its cache."""

    @property
    def layout(self) -> KVLayout:
        """Geometry of the cache."""

    @property
    def num_pages(self) -> int:
        """Pages in the arena."""

    @property
    def tile_slots(self) -> TileSlots | None:
        """Room for encoded tiles of pictures; None if the model sees none."""

    @property
    def max_model_len(self) -> int:
        """Most tokens, prompt and completion together, of one request."""

    @property
    def vocab_size(self) -> int:
        """Token ids are below this."""

    @property
    def dtype(self) -> str:
        """Of weights, activations and cache, by PyTorch's name without `torch.`."""

    @property
    def device(self) -> str:
        """Where it computes: cpu, cuda:0."""

    @property
    def fingerprint(self) -> str:
        """Changes whenever the same request could give other tokens."""

    def launch(self, plan: StepPlan, masks: Callable[[], TokenMasks] | None = None) -> Launched:
        """Starts one step. Steps take effect in the order of their launches.

        `masks` is called when everything but the draw of the tokens is under way: it may wait for
        the tokens of the steps before, while the device computes.
        """

    def rest(self) -> None:
        """There is nothing to launch. Called at least once a second while that is so."""

    def close(self) -> None:
        """No more steps will come."""
