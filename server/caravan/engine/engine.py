"""The engine as a plain object: schedule, execute, update, reply, without processes or sockets.

`loop.py` drives it in its own process; tests and the offline benchmark drive it in theirs.

With `async_scheduling` a step is planned and launched before the tokens of the one before it are
fetched, so the device goes from one to the next while the host still works on the last one's
tokens:

    host     schedule 1, launch 1 | schedule 2, launch 2, update 1 | schedule 3, launch 3, update 2
    device                step 1 ------------------------> step 2 --------------------> step 3 ----
"""

from __future__ import annotations

from collections import deque

from caravan.engine.executor import Executor, Launched
from caravan.messages import Generate, Image, Stats, StepOutput, StepPlan
from caravan.scheduling.scheduler import Scheduler


class Engine:
    """A scheduler and an executor that work in step."""

    def __init__(
        self, executor: Executor, scheduler: Scheduler, *, async_scheduling: bool = False
    ) -> None:
        self._executor = executor
        self._scheduler = scheduler
        self._steps_ahead = int(async_scheduling)
        self._launched: deque[tuple[StepPlan, Launched]] = deque()

    @property
    def has_work(self) -> bool:
        """Whether `step` would do anything."""
        return self._scheduler.has_work or bool(self._launched)

    @property
    def stats(self) -> Stats:
        """What is held now."""
        return self._scheduler.stats()

    def add_image(self, image: Image) -> None:
        """Takes a picture of requests that follow."""
        self._scheduler.add_image(image)

    def add(self, request: Generate) -> None:
        """Queues a request; it takes part in the next step that has room."""
        self._scheduler.add(request)

    def abort(self, rid: int) -> None:
        """Drops a request. Its pages are free for the next step; unknown ids are ignored."""
        self._scheduler.abort(rid)

    def step(self) -> StepOutput | None:
        """Launches a step, and fetches the oldest one that is due. None if there is neither."""
        plan = self._scheduler.schedule()
        if plan is not None:
            self._launched.append((plan, self._executor.launch(plan)))
        elif not self._launched:
            assert not self.has_work, self.stats
            return None
        deltas = []
        if plan is None or len(self._launched) > self._steps_ahead:
            fetched, launched = self._launched.popleft()
            deltas = self._scheduler.update(fetched, launched.result())
        return StepOutput(deltas, self._scheduler.stats())
