"""A model that several processes hold: rank 0 tells the others each step."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from caravan.config import EngineConfig
from caravan.errors import CaravanError
from caravan.messages import Beat, Halt, Launch, Progress, StepPlan, TokenMasks
from caravan.model.parallel import PeerLost
from caravan.worker.channel import Channel
from caravan.worker.group import Group
from caravan.worker.runner import LaunchedStep, Runner


class LeadingRunner(Runner):
    """Rank 0's: what it launches, all ranks do."""

    def __init__(
        self,
        config: EngineConfig,
        directory: Path,
        report: Callable[[Progress], None],
        group: Group,
        blame: Callable[[], CaravanError],
    ) -> None:
        """`blame` says why the group is broken, when it is."""
        self._blame = blame
        self._group = group
        self._channel = Channel(group)
        with self._explained():
            super().__init__(config, directory, report, group)

    def launch(self, plan: StepPlan, masks: Callable[[], TokenMasks] | None = None) -> LaunchedStep:
        """See engine.executor.Executor.launch."""
        with self._explained():
            self._channel.send(Launch(plan, masked=masks is not None))
            return super().launch(plan, None if masks is None else partial(self._tell, masks))

    def rest(self) -> None:
        """See engine.executor.Executor.rest."""
        with self._explained():
            self._channel.send(Beat())

    def close(self) -> None:
        """See engine.executor.Executor.close."""
        with self._explained():
            self._channel.send(Halt())
        self._group.close()

    def _tell(self, masks: Callable[[], TokenMasks]) -> TokenMasks:
        found = masks()
        self._channel.send(found)
        return found

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except PeerLost as error:
            raise self._blame() from error
