"""Of two starters one gets the folder, and a dead process holds nothing."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from minimind.errors import RunError
from minimind.storage.lock import Lock

HOLD = """
import sys, time
from pathlib import Path
from minimind.errors import RunError
from minimind.storage.lock import Lock
try:
    lock = Lock(Path(sys.argv[1]))
except RunError as error:
    sys.exit(f"refused: {error}")
print("held", flush=True)
time.sleep(float(sys.argv[2]))
"""


def start(folder: Path, seconds: float) -> subprocess.Popen[str]:
    source = str(Path(__file__).resolve().parents[1] / "src")
    return subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder), str(seconds)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": source},
    )


def test_one_of_several_starters_gets_the_folder_and_the_others_are_told_who(tmp_path: Path) -> None:
    starters = [start(tmp_path, 60) for _ in range(4)]
    try:
        deadline = time.monotonic() + 30
        while sum(starter.poll() is not None for starter in starters) < 3 and time.monotonic() < deadline:
            time.sleep(0.02)
        holders = [starter for starter in starters if starter.poll() is None]
        told = [starter.communicate()[1] for starter in starters if starter.poll() is not None]
        assert len(holders) == 1
        assert {re.findall(r"process (\w+) writes", line)[0] for line in told} == {str(holders[0].pid)}
    finally:
        for starter in starters:
            starter.kill()
            starter.communicate()


def test_the_lock_of_a_killed_process_is_taken_over(tmp_path: Path) -> None:
    holder = start(tmp_path, 60)
    assert holder.stdout is not None and holder.stdout.readline() == "held\n"
    with pytest.raises(RunError, match=f"process {holder.pid} writes"):
        Lock(tmp_path)
    holder.send_signal(signal.SIGKILL)
    holder.communicate()
    Lock(tmp_path).release()


def test_without_flock_a_heartbeat_decides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError("this file system has no locks")

    monkeypatch.setattr("fcntl.flock", refuse)
    (tmp_path / "lock").write_text("123\n")
    with pytest.raises(RunError, match="process 123 writes"):
        Lock(tmp_path)
    os.utime(tmp_path / "lock", (0, 0))
    lock = Lock(tmp_path)
    with pytest.raises(RunError, match=f"process {os.getpid()} writes"):
        Lock(tmp_path)
    lock.release()
    Lock(tmp_path).release()
