"""The engine as a plain object: schedule, execute, update, reply, without processes or sockets.

`loop.py` drives it in its own process; tests and the offline benchmark drive it in theirs.
"""

from __future__ import annotations

from caravan.engine.executor import Executor
from caravan.messages import Generate, Image, Stats, StepOutput
from caravan.scheduling.scheduler import Scheduler


class Engine:
    """A scheduler and an executor that work in step."""

    def __init__(self, executor: Executor, scheduler: Scheduler) -> None:
        self._executor = executor
        self._scheduler = scheduler

    @property
    def has_work(self) -> bool:
        """Whether `step` would do anything."""
        return self._scheduler.has_work

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
        """Runs one step. None if there is nothing to do."""
        plan = self._scheduler.schedule()
        if plan is None:
            assert not self.has_work, self.stats
            return None
        result = self._executor.run(plan)
        deltas = self._scheduler.update(plan, result)
        return StepOutput(deltas, self._scheduler.stats())
