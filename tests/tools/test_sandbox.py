"""A program in the sandbox can compute and print, and nothing else; without a sandbox there is no tool."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from minimind.errors import ConfigError
from minimind.tools import sandbox
from minimind.tools.builtin import TOOLS, run_tool
from minimind.tools.sandbox import Sandbox, python_tool
from minimind.tools.tool import Tool

MACHINES = ("x86_64", "aarch64")


@pytest.fixture(scope="session")
def tool() -> Tool:
    if shutil.which("bwrap") is None:
        pytest.skip("no bubblewrap: install it to test the sandbox (apt install bubblewrap)")
    plain = ["bwrap", "--unshare-all", "--ro-bind", "/", "/", "true"]
    if subprocess.run(plain, capture_output=True, check=False).returncode or sandbox.platform.machine() not in MACHINES:
        pytest.skip("bubblewrap does not work on this machine, not even around `true`")
    return python_tool()


def answer(tool: Tool, program: str) -> dict[str, str]:
    return json.loads(run_tool(tool.name, {"program": program}, {tool.name: tool}))


def test_a_program_prints_its_result(tool: Tool) -> None:
    assert answer(tool, "import math\nprint(math.comb(10, 3), '好')") == {"result": "120 好\n"}
    assert answer(tool, "") == {"result": ""}


ESCAPES = {
    "a file of the machine": "print(open({canary!r}).read())",
    "the files of the machine": "import os; os.stat({canary!r})",
    "the password file": "open('/etc/passwd')",
    "the kernel's files": "open('/proc/version')",
    "a file to write": "open({canary!r}, 'w')",
    "the root to write": "open('/x', 'w')",
    "Python to change": "import os; open(os.__file__, 'a')",
    "memory behind files": "open('/dev/shm/x', 'w')",
    "the network": "import socket; socket.create_connection(('127.0.0.1', {port}), 1)",
    "a name on the network": "import socket; socket.getaddrinfo('localhost', 80)[999]",
    "another process": "import os; os.fork()",
    "another program": "import subprocess; subprocess.run(['/bin/sh', '-c', 'true'])",
    "a shell": "import os; assert os.system('true') == 0",
    "a thread": "import threading; threading.Thread(target=print).start()",
    "all processes": "import os; os.kill(-1, 9)",
    "a larger limit": "import resource as r; r.setrlimit(r.RLIMIT_AS, (r.RLIM_INFINITY,) * 2)",
    "a mount": "import ctypes; assert ctypes.CDLL(None).mount(b'x', b'/tmp', b'tmpfs', 0, None) == 0",
    "a namespace": "import ctypes; assert ctypes.CDLL(None).unshare(0x10000000) == 0",
    "the keys of the session": "import ctypes; assert ctypes.CDLL(None).syscall({keyctl}, 0, -3, 0) >= 0",
    "memory": "bytearray(10**9)",
    "memory that is shared": "import ctypes; assert ctypes.CDLL(None).shmget(0, 1 << 20, 0o1777) >= 0",
    "a large file": "open('/tmp/x', 'wb').write(b'x' * 2_000_000)",
    "many files": "for n in range(99): open(f'/tmp/{{n}}', 'wb').write(b'x' * 1_000_000)",
    "many open files": "files = [open('/tmp/x', 'w') for _ in range(99)]",
    "what is typed": "input()",
    "a package": "import numpy",
}


@pytest.mark.parametrize("name", ESCAPES)
def test_what_is_outside_cannot_be_reached(name: str, tool: Tool, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    canary.write_text("secret", encoding="utf-8")

    keyctl = sandbox._REFUSED[sandbox.platform.machine()]["keyctl"]
    result = answer(tool, ESCAPES[name].format(canary=str(canary), port=9, keyctl=keyctl))

    assert list(result) == ["error"] and "secret" not in result["error"], result
    assert canary.read_text(encoding="utf-8") == "secret"


def test_nothing_of_the_environment_is_seen(tool: Tool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CANARY_OF_MINE", "secret")

    assert "secret" not in answer(tool, "import os; print(dict(os.environ))")["result"]


@pytest.mark.parametrize("program", ["while True: pass", "import time; time.sleep(60)"])
def test_a_program_that_does_not_end_is_ended(program: str, tool: Tool) -> None:
    bwrap = shutil.which("bwrap")
    assert bwrap is not None

    with pytest.raises(ValueError, match=r"the program ran longer than 0.5 seconds"):
        Sandbox(bwrap, timeout_seconds=0.5).run(program)


def test_what_is_printed_is_bounded(tool: Tool) -> None:
    assert len(answer(tool, "print('x' * 10**5)")["result"]) < 5000
    assert answer(tool, "print('x' * 10**8)") == {"error": "the program printed more than 1,048,576 bytes"}
    assert answer(tool, "import sys; sys.stdout.buffer.write(b'\\xff')") == {"result": "\ufffd"}


def test_programs_do_not_see_what_others_left(tool: Tool) -> None:
    program = "import os; print(os.listdir('/tmp')); open('/tmp/x', 'w').write('x')"

    assert [answer(tool, program) for _ in range(2)] == [{"result": "[]\n"}] * 2


def test_a_failure_tells_its_reason(tool: Tool) -> None:
    assert "ZeroDivisionError" in answer(tool, "1/0")["error"]
    assert answer(tool, "import sys; sys.exit(3)") == {"error": "the program failed with status 3: it printed nothing"}


def test_the_tool_is_not_there_unless_it_is_made() -> None:
    assert "run_python" not in TOOLS
    assert "there is no tool 'run_python'" in run_tool("run_python", {"program": "print(1)"})


def test_without_bubblewrap_there_is_no_tool(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(ConfigError, match="run_python needs bubblewrap, and there is no program bwrap here"):
        python_tool()


def fake_bwrap(folder: Path, script: str) -> None:
    program = folder / "bwrap"
    program.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    program.chmod(0o755)


@pytest.mark.parametrize(
    ("script", "problem"),
    [
        ("echo 'bwrap: No permissions to create new namespace' >&2; exit 1", "No permissions to create new namespace"),
        ("exit 0", "does not work here"),
        ("echo no JSON", "does not work here"),
        ("echo 0", "does not work here"),
        ("echo '[\"the network\"]'", "does not close off the network"),
    ],
)
def test_a_sandbox_that_does_not_hold_gives_no_tool(
    script: str, problem: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fake_bwrap(tmp_path, script)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")

    with pytest.raises(ConfigError, match=problem):
        python_tool()


@pytest.mark.parametrize("wall", ["--unshare-all", "--seccomp", "--remount-ro", "--tmpfs"])
def test_each_wall_that_is_left_out_is_noticed(wall: str, tool: Tool, monkeypatch: pytest.MonkeyPatch) -> None:
    command = Sandbox._command
    steps = {"--unshare-all": 2, "--seccomp": 2, "--remount-ro": 2, "--tmpfs": 4}

    def without(self: Sandbox, filter_fd: int) -> list[str]:
        arguments = command(self, filter_fd)
        while wall in arguments:
            place = arguments.index(wall)
            if wall == "--tmpfs":
                # The machine's own instead; the size stands before it.
                arguments[place - 2 : place + 2] = ["--bind", "/tmp", "/tmp"]
            else:
                del arguments[place : place + steps[wall]]
        return arguments

    monkeypatch.setattr(Sandbox, "_command", without)
    with pytest.raises(ConfigError, match=r"run_python is refused: the sandbox does not"):
        python_tool()


def test_another_machine_is_refused(tool: Tool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox.platform, "machine", lambda: "pdp11")

    with pytest.raises(ConfigError, match="no filter of system calls is known for pdp11"):
        python_tool()
