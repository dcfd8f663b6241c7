"""Calls that may hang, with a time limit that holds in any thread.

Python cannot stop a thread, so a call runs in a daemon thread of its own; when its time is up it is left behind, its
answer goes nowhere, and it does not keep the process from ending. It still has its share of the CPU until then. What
this cannot interrupt is C code that keeps the interpreter's lock, such as one endless `re.match`.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from threading import Thread
from typing import Any

__all__ = ["CallEnding", "call_in_time"]


@dataclass(frozen=True)
class CallEnding:
    """How a call ended: with a value, with an exception, or not within its time."""

    value: Any = None
    error: BaseException | None = None
    timed_out: bool = False


def call_in_time(function: Callable[..., Any], arguments: Sequence[Any], timeout_seconds: float) -> list[CallEnding]:
    """`function(argument)` for all arguments at once, in order; each has `timeout_seconds`, and none can raise."""
    started = [_start(function, argument) for argument in arguments]
    deadline = time.monotonic() + timeout_seconds
    endings = []
    for thread, box in started:
        thread.join(max(deadline - time.monotonic(), 0.0))
        # The box is read once: a late answer must not change what was already decided.
        endings.append(box[0] if box else CallEnding(timed_out=True))
    return endings


def _start(function: Callable[..., Any], argument: Any) -> tuple[Thread, list[CallEnding]]:
    box: list[CallEnding] = []

    def target() -> None:
        try:
            ending = CallEnding(function(argument))
        except BaseException as error:  # A call to sys.exit is a failure like any other.
            ending = CallEnding(error=error)
        box.append(ending)

    thread = Thread(target=target, name="minimind-call", daemon=True)
    thread.start()
    return thread, box
