"""How a run shows itself on stderr: a progress bar on a terminal, a line per epoch elsewhere, nothing when quiet."""

import sys
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from dmf.training.metrics import EpochMetrics


class Display:
    """Of a run of so many epochs; a context."""

    def __init__(self, epochs: int, *, quiet: bool) -> None:
        self.epochs, self.quiet = epochs, quiet
        console = Console(stderr=True)
        self.bar = Progress(
            TextColumn("epoch {task.completed:.1f}/{task.total}"),
            BarColumn(),
            TextColumn("{task.fields[text]}"),
            TextColumn("ETA"),
            TimeRemainingColumn(),
            console=console,
            disable=quiet or not console.is_terminal,
            speed_estimate_period=600,
        )
        self.task: TaskID | None = None

    def __enter__(self) -> "Display":
        self.bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bar.stop()

    def begin(self, epochs_done: int) -> None:
        """Show the bar; what was done before a resume is no measure of speed."""
        self.task = self.bar.add_task("training", total=self.epochs, completed=epochs_done, text="")

    def step(self, epochs_done: float, progress: str, images_per_second: float) -> None:
        assert self.task is not None, "begin comes first"
        self.bar.update(self.task, completed=epochs_done, text=f"{progress}, {images_per_second:.0f} images/s")

    def epoch(self, row: EpochMetrics, seconds_left: float) -> None:
        self.note(
            f"epoch {row.epoch}/{self.epochs}: {row.text}, "
            f"{row.images_per_second:.0f} images/s, {seconds_left:.0f} s left"
        )

    def note(self, text: str) -> None:
        """A line above the bar."""
        if self.quiet:
            return
        if self.bar.disable:
            print(text, file=sys.stderr, flush=True)
        else:
            self.bar.console.print(text, highlight=False, markup=False, soft_wrap=True)
