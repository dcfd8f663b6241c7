"""A signal is remembered until the step is over, unless somebody insists."""

import os
import signal

import pytest

from minimind.training.stop_signal import StopSignal


def test_a_second_ctrl_c_does_not_wait_for_the_step() -> None:
    with StopSignal() as signals:
        os.kill(os.getpid(), signal.SIGINT)
        assert signals.received == signal.SIGINT
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_the_exit_code_is_that_of_a_shell_and_of_sigterm_where_another_rank_was_told() -> None:
    with StopSignal() as signals:
        assert signals.exit_code == 143
        os.kill(os.getpid(), signal.SIGINT)
        assert signals.exit_code == 130
