"""What `caravan serve` shows while it starts: a bar on a terminal, some lines elsewhere."""

from __future__ import annotations

from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, TaskID, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars

from caravan.messages import Progress

_LINE_SHARE = 0.25  # of a phase, between two lines


class StartDisplay:
    """Shows Progress messages until it is closed."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._phase = ""
        self._next_line = 0.0  # share of the phase
        self._task: TaskID | None = None
        self._bars = Bars(
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TimeElapsedColumn(),
            console=console,
            disable=not console.is_terminal,
        )

    def __enter__(self) -> StartDisplay:
        self._bars.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Leaves the terminal as it was. May be called again."""
        self._bars.stop()

    def show(self, progress: Progress) -> None:
        """The next message of the engine."""
        is_new = progress.phase != self._phase
        self._phase = progress.phase
        if self._console.is_terminal:
            if is_new or self._task is None:
                self._task = self._bars.add_task(progress.phase, total=progress.total)
            self._bars.update(self._task, completed=progress.done, total=progress.total)
            return
        share = progress.done / progress.total if progress.total else 1.0
        if is_new or share >= self._next_line:
            self._next_line = min(1.0, share + _LINE_SHARE) if share < 1 else 2.0
            self._console.print(f"{progress.phase}: {share:.0%}", highlight=False)
