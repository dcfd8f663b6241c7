"""A line that tells how work goes: figures, speed, time left. A bar on a terminal, a plain line elsewhere."""

import time
from collections.abc import Mapping

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from minimind.terminal.figures import duration, size
from minimind.terminal.notes import note

__all__ = ["ReadingProgress", "TrainingProgress"]

# On no terminal a line this often is enough to see that the run lives, and keeps a log readable.
PLAIN_SECONDS = 15
# Of a step's metrics, those worth a place on the line.
HEADLINES = ("loss", "accuracy", "reward")
SCORES = ("bits_per_byte",)


class TrainingProgress:
    """A `with` block around the loop; silent on every rank but the first."""

    def __init__(self, name: str, total_steps: int, step: int, *, is_shown: bool = True) -> None:
        self.console = Console(stderr=True, quiet=not is_shown)
        self.total_steps = total_steps
        self.first_step, self.started, self.printed = step, time.monotonic(), 0.0
        self.bar = _bar(self.console, MofNCompleteColumn(), is_shown=is_shown)
        self.task = self.bar.add_task(name, total=total_steps, completed=step, figures="")
        self.name = name

    def __enter__(self) -> "TrainingProgress":
        self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.stop()

    def update(self, step: int, metrics: Mapping[str, float]) -> None:
        """Show a step's headline and speed, and what validation found when it ran."""
        figures = _shown({name: metrics[name] for name in HEADLINES if name in metrics})
        if "tokens_per_second" in metrics:
            figures += f"  {metrics['tokens_per_second']:,.0f} tokens/s"
        self.bar.update(self.task, completed=step, figures=figures)
        valid = {name: value for name, value in metrics.items() if name.startswith("valid_") or name in SCORES}
        if valid:
            self._print(step, f"{figures}  {_shown(valid)}")
        elif not self.console.is_terminal and (
            step == self.total_steps or time.monotonic() - self.printed > PLAIN_SECONDS
        ):
            self._print(step, figures)

    def note(self, text: str) -> None:
        """A line of its own, above the bar."""
        self.console.print(text, highlight=False, markup=False, soft_wrap=True)

    def _print(self, step: int, figures: str) -> None:
        self.printed = time.monotonic()
        done = step - self.first_step
        left = (self.total_steps - step) * (self.printed - self.started) / done if done else None
        remaining = "" if left is None else f"  {duration(left)} left"
        line = f"{self.name} step {step}/{self.total_steps}  {figures.strip()}{remaining}".rstrip()
        self.console.print(line, highlight=False, markup=False, soft_wrap=True)


class ReadingProgress:
    """A `with` block around the reading of files, whose size may be unknown."""

    def __init__(self, name: str) -> None:
        self.console = Console(stderr=True)
        self.name = name
        self.started = self.printed = time.monotonic()
        self.bar = _bar(self.console, TransferSpeedColumn())
        self.task = self.bar.add_task(name, total=None, figures="")

    def __enter__(self) -> "ReadingProgress":
        self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.stop()

    def update(self, position: int, total: int | None, figures: str) -> None:
        """Bytes read so far, of how many, and what was found in them."""
        self.bar.update(self.task, total=total, completed=position, figures=figures)
        now = time.monotonic()
        if self.console.is_terminal or now - self.printed < PLAIN_SECONDS:
            return
        self.printed = now
        speed = position / (now - self.started)
        left = f", {duration((total - position) / speed)} left" if total and speed else ""
        note(f"{self.name}: {figures}, {size(speed)}/s{left}")


def _bar(console: Console, amount: ProgressColumn, *, is_shown: bool = True) -> Progress:
    return Progress(
        TextColumn("[bold]{task.description}"),
        BarColumn(bar_width=24),
        amount,
        TextColumn("{task.fields[figures]}"),
        TimeRemainingColumn(compact=True),
        TextColumn("left"),
        console=console,
        disable=not (is_shown and console.is_terminal),
    )


def _shown(figures: Mapping[str, float]) -> str:
    return "  ".join(f"{name} {value:.3f}" for name, value in figures.items())
