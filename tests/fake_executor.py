"""An executor without a model: it draws the position of the token as the token."""

from __future__ import annotations

from collections.abc import Callable

from caravan.kv_layout import KVLayout
from caravan.messages import Sampled, StepPlan, StepResult, TokenMasks
from caravan.tiles import TileSlots

LAYOUT = KVLayout(
    block_len=4, chunk_len=16, full_slices=1, chunked_slices=3, slice_layers=1, page_bytes=64
)


class Drawn:
    """See engine.executor.Launched."""

    def __init__(self, plan: StepPlan) -> None:
        self._plan = plan

    def result(self) -> StepResult:
        sampling = [segment for segment in self._plan.segments if segment.samples]
        return StepResult([Sampled(part.rid, part.start + part.length) for part in sampling])


class FakeExecutor:
    """See engine.executor.Executor. `before_run` is called with every plan."""

    layout = LAYOUT
    num_pages = 256
    tile_slots: TileSlots | None = None
    max_model_len = 200
    vocab_size = 1000
    dtype = "float32"
    device = "cpu"
    fingerprint = "fp_fake"

    def __init__(self, before_run: Callable[[StepPlan], None] | None = None) -> None:
        self._before_run = before_run
        self.plans: list[StepPlan] = []
        self.masks: list[TokenMasks | None] = []  # of each plan
        self.rests = 0
        self.closed = False

    def launch(self, plan: StepPlan, masks: Callable[[], TokenMasks] | None = None) -> Drawn:
        if self._before_run:
            self._before_run(plan)
        self.plans.append(plan)
        self.masks.append(masks() if masks else None)
        return Drawn(plan)

    def rest(self) -> None:
        self.rests += 1

    def close(self) -> None:
        self.closed = True
