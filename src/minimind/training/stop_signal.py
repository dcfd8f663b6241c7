"""Ctrl-C and SIGTERM, heard at the end of a step."""

import signal
from types import FrameType
from typing import Any

__all__ = ["StopSignal"]


class StopSignal:
    """Remembers SIGINT and SIGTERM until the step is over; a second SIGINT stops at once."""

    def __init__(self) -> None:
        self.received: int | None = None
        self._previous: dict[int, Any] = {}

    @property
    def exit_code(self) -> int:
        """128 + the signal's number, as a shell reports it; 143 when another rank was the one to be told."""
        return 128 + (self.received or signal.SIGTERM)

    def __enter__(self) -> "StopSignal":
        for number in (signal.SIGINT, signal.SIGTERM):
            self._previous[number] = signal.signal(number, self._remember)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _remember(self, number: int, _: FrameType | None) -> None:
        if self.received == number == signal.SIGINT:
            raise KeyboardInterrupt
        self.received = number
