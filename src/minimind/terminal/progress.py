"""A line that tells how training goes: loss, speed, time left. A bar on a terminal, a plain line elsewhere."""

import time
from collections.abc import Mapping

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

__all__ = ["TrainingProgress"]

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
        self.bar = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[figures]}"),
            TimeRemainingColumn(compact=True),
            TextColumn("left"),
            console=self.console,
            disable=not (is_shown and self.console.is_terminal),
        )
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
        remaining = "" if left is None else f"  {_clock(left)} left"
        line = f"{self.name} step {step}/{self.total_steps}  {figures.strip()}{remaining}".rstrip()
        self.console.print(line, highlight=False, markup=False, soft_wrap=True)


def _shown(figures: Mapping[str, float]) -> str:
    return "  ".join(f"{name} {value:.3f}" for name, value in figures.items())


def _clock(seconds: float) -> str:
    hours, rest = divmod(round(seconds), 3600)
    return f"{hours}:{rest // 60:02d}:{rest % 60:02d}" if hours else f"{rest // 60}:{rest % 60:02d}"
