"""A call that hangs costs its time limit and no more, in any thread; what it says later is not heard."""

import subprocess
import sys
from threading import Event, Thread

import pytest

from minimind.rl.time_limit import CallResult, call_in_time


def test_calls_end_in_order_with_a_value_or_an_exception() -> None:
    def half(number: int) -> float:
        return 1 / number

    first, second, third = call_in_time(half, [1, 0, 2], 5)
    assert (first, third) == (CallResult(1.0), CallResult(0.5))
    assert isinstance(second.error, ZeroDivisionError) and not second.timed_out


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, GeneratorExit])
def test_no_exception_comes_through(error: type[BaseException]) -> None:
    def leave(_: int) -> None:
        raise error

    [result] = call_in_time(leave, [0], 5)
    assert isinstance(result.error, error)


def test_a_hanging_call_is_left_behind_and_its_late_answer_is_not_heard() -> None:
    release, answered = Event(), Event()

    def wait(number: int) -> int:
        if number:
            release.wait()
            answered.set()
        return number

    results = call_in_time(wait, [0, 1, 0, 1], 0.2)
    assert not answered.is_set()
    release.set()
    answered.wait(5)
    assert results == [CallResult(0), CallResult(timed_out=True), CallResult(0), CallResult(timed_out=True)]


def test_the_limit_holds_in_threads_and_for_loops_that_never_wait() -> None:
    stop = Event()
    results: list[CallResult] = []

    def spin(_: int) -> None:
        while not stop.is_set():
            pass

    thread = Thread(target=lambda: results.extend(call_in_time(spin, [0], 0.2)))
    thread.start()
    thread.join(10)
    stop.set()
    assert results == [CallResult(timed_out=True)]


def test_a_call_left_behind_does_not_keep_the_process() -> None:
    program = (
        "import time; from minimind.rl.time_limit import call_in_time; print(call_in_time(time.sleep, [600], 0.1))"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)

    assert "timed_out=True" in ended.stdout
