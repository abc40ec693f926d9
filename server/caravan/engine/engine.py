"""The engine as a plain object: schedule, execute, update, reply, without processes or sockets.

`loop.py` drives it in its own process; tests and the offline benchmark drive it in theirs.

With `async_scheduling` a step is planned and launched before the tokens of the one before it are
fetched, so the device goes from one to the next while the host still works on the last one's
tokens:

    host     schedule 1, launch 1 | schedule 2, launch 2, update 1 | schedule 3, launch 3, update 2
    device                step 1 ------------------------> step 2 --------------------> step 3 ----

Where a grammar decides on a token, the step before is fetched first, while the device computes:
only the draw itself waits for the mask.
"""

from __future__ import annotations

from collections import deque

from caravan.engine.constraints import FAILED, Constraints
from caravan.engine.executor import Executor, Launched
from caravan.messages import Delta, Generate, Image, Stats, StepOutput, StepPlan, TokenMasks
from caravan.scheduling.scheduler import Scheduler


class Engine:
    """A scheduler and an executor that work in step."""

    def __init__(
        self,
        executor: Executor,
        scheduler: Scheduler,
        constraints: Constraints | None = None,
        *,
        async_scheduling: bool = False,
    ) -> None:
        """Without `constraints` no request may have a grammar."""
        self._executor = executor
        self._scheduler = scheduler
        self._constraints = constraints or Constraints(None, executor.vocab_size)
        self._steps_ahead = int(async_scheduling)
        self._launched: deque[tuple[StepPlan, Launched]] = deque()
        self._deltas: list[Delta] = []  # for the next output

    @property
    def has_work(self) -> bool:
        """Whether `step` would do anything."""
        return self._scheduler.has_work or bool(self._launched or self._deltas)

    @property
    def compiling(self) -> bool:
        """Whether there will be work soon: a request waits for its grammar."""
        return self._constraints.compiling

    @property
    def stats(self) -> Stats:
        """What is held now."""
        return self._scheduler.stats()

    def add_image(self, image: Image) -> None:
        """Takes a picture of requests that follow."""
        self._scheduler.add_image(image)

    def add(self, request: Generate) -> None:
        """Queues a request; it takes part in the next step that has room."""
        if request.grammar is None:
            self._scheduler.add(request)
        else:
            self._constraints.add(request)

    def abort(self, rid: int) -> None:
        """Drops a request. Its pages are free for the next step; unknown ids are ignored."""
        self._constraints.forget(rid)
        self._scheduler.abort(rid)

    def step(self) -> StepOutput | None:
        """Launches a step, and fetches the oldest one that is due. None if there is neither."""
        self._schedule_compiled()
        plan = self._scheduler.schedule()
        if plan is not None:
            self._launch(plan)
        elif not self._launched and not self._deltas:
            assert not self.has_work, self.stats
            self._executor.rest()
            return None
        if self._launched and (plan is None or len(self._launched) > self._steps_ahead):
            self._fetch()
        deltas, self._deltas = self._deltas, []
        return StepOutput(deltas, self._scheduler.stats())

    def close(self) -> None:
        """Ends what computes, in good order."""
        self._executor.close()

    def _schedule_compiled(self) -> None:
        """Takes in the requests whose grammars are ready."""
        ready, failed = self._constraints.compiled()
        for request in ready:
            self._scheduler.add(request)
        for request, reason in failed:
            self._scheduler.add(request)  # takes the request's share of its pictures
            self._fail(request.rid, reason)

    def _launch(self, plan: StepPlan) -> None:
        def masks() -> TokenMasks:
            while self._launched:
                self._fetch()
            return self._constraints.masks(plan)

        constrained = self._constraints.concern(plan)
        launched = self._executor.launch(plan, masks if constrained else None)
        self._launched.append((plan, launched))
        self._fail_broken()

    def _fetch(self) -> None:
        """Waits for the oldest step."""
        plan, launched = self._launched.popleft()
        deltas = self._scheduler.update(plan, launched.result())
        self._deltas += deltas
        self._constraints.take_in(deltas)
        self._fail_broken()

    def _fail_broken(self) -> None:
        for rid in self._constraints.failed():
            self._fail(rid, FAILED)

    def _fail(self, rid: int, reason: str) -> None:
        self.abort(rid)
        self._deltas.append(Delta(rid, [], failure=reason))
