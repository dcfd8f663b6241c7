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

__all__ = ["CallResult", "call_in_time"]


@dataclass(frozen=True)
class CallResult:
    """How a call ended: with a value, with an exception, or not within its time."""

    value: Any = None
    error: BaseException | None = None
    timed_out: bool = False


def call_in_time(function: Callable[..., Any], arguments: Sequence[Any], timeout_seconds: float) -> list[CallResult]:
    """`function(argument)` for all arguments at once, in order; each has `timeout_seconds`, and none can raise."""
    started = [_start(function, argument) for argument in arguments]
    deadline = time.monotonic() + timeout_seconds
    results = []
    for thread, box in started:
        thread.join(max(deadline - time.monotonic(), 0.0))
        # The box is read once: a late answer must not change what was already decided.
        results.append(box[0] if box else CallResult(timed_out=True))
    return results


def _start(function: Callable[..., Any], argument: Any) -> tuple[Thread, list[CallResult]]:
    box: list[CallResult] = []

    def target() -> None:
        try:
            result = CallResult(function(argument))
        except BaseException as error:  # A call to sys.exit is a failure like any other.
            result = CallResult(error=error)
        box.append(result)

    thread = Thread(target=target, name="minimind-call", daemon=True)
    thread.start()
    return thread, box
