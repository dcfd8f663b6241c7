"""`run_python`: a tool that runs a model's program where it can do no harm. Off unless somebody makes it.

The program runs under bubblewrap, in namespaces of its own: no network, no files but Python itself and system
libraries (read-only), a /tmp of its own in memory, no capabilities. It may start no other process or thread, and its
memory, CPU time, open files and output are bounded. `python_tool` tries all that out first and refuses to give a tool
whose walls do not hold: without a sandbox there is no `run_python`.
"""

import json
import math
import platform
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from minimind.errors import ConfigError
from minimind.tools.tool import Tool

__all__ = ["Sandbox", "python_tool"]

MEBIBYTE = 1 << 20
MAX_OPEN_FILES = 32
MAX_ANSWER = 4000

# Runs first inside, sets limits that the program cannot raise, and becomes the Python that reads the program from
# standard input.
_BOOT = """
import os, resource, sys
for name, limit in zip(("AS", "CPU", "FSIZE", "NOFILE", "CORE"), map(int, sys.argv[1:])):
    resource.setrlimit(getattr(resource, "RLIMIT_" + name), (limit, limit))
os.execv(sys.executable, [sys.executable, "-I", "-S", "-"])
"""

# Looks for holes from inside; prints the names of those it finds.
_PROBE = """
import json, os, socket
holes = []
def hole(name, attempt):
    try:
        if attempt() is not False:
            holes.append(name)
    except OSError:
        pass
hole("the network", lambda: socket.create_connection(("127.0.0.1", PORT), 1))
hole("the network", lambda: any(name != "lo" for _, name in socket.if_nameindex()))
hole("processes", lambda: os.fork() or os._exit(0))
hole("the files outside", lambda: os.path.exists(CANARY) or bool(set(os.listdir("/")) - KNOWN))
for folder in ("/", "/usr", "/dev", "/dev/shm"):
    hole("writing to " + folder, lambda: open(folder + "/probe", "w").close())
print(json.dumps(holes))
"""

# By the kernel's names: what `seccomp` calls the machine, and the numbers of the system calls that are refused. These
# start a process or a thread, make a namespace, make memory that no limit counts, work behind this filter's back, or
# read the keys of the session outside. Source: audit.h and unistd.h of Linux 6.
_MACHINES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_REFUSED = {
    "x86_64": {
        **{"clone": 56, "fork": 57, "vfork": 58, "clone3": 435, "unshare": 272, "shmget": 29},
        **{"io_uring_setup": 425, "add_key": 248, "request_key": 249, "keyctl": 250},
    },
    "aarch64": {
        **{"clone": 220, "clone3": 435, "unshare": 97, "shmget": 194},
        **{"io_uring_setup": 425, "add_key": 217, "request_key": 218, "keyctl": 219},
    },
}


@dataclass(frozen=True)
class Sandbox:
    """Runs one program at a time, each from nothing.

    timeout_seconds:  on the clock; of CPU time it may have one second more
    memory_bytes:     the address space, Python's own included
    output_bytes:     of what it prints, and of each file in its /tmp; the /tmp as a whole holds 16 times as much
    """

    bwrap: str
    timeout_seconds: float = 5.0
    memory_bytes: int = 256 * MEBIBYTE
    output_bytes: int = MEBIBYTE

    def run(self, program: str) -> str:
        """What the program prints, errors included. Errors: ValueError when it fails or takes too long."""
        with _file(program.encode()) as source, _file() as output, _file(_system_call_filter()) as rules:
            try:
                ended = subprocess.run(
                    self._command(rules.fileno()),
                    stdin=source,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    env={"LC_ALL": "C.UTF-8"},
                    pass_fds=[rules.fileno()],
                    timeout=self.timeout_seconds,
                    check=False,
                )
            except subprocess.TimeoutExpired:
                raise ValueError(f"the program ran longer than {self.timeout_seconds:g} seconds") from None
            output.seek(0)
            data = output.read()
        if len(data) >= self.output_bytes:
            raise ValueError(f"the program printed more than {self.output_bytes:,} bytes")
        printed = data.decode(errors="replace")
        if ended.returncode != 0:
            said = printed[-MAX_ANSWER:].strip() or "it printed nothing"
            raise ValueError(f"the program failed with status {ended.returncode}: {said}")
        return printed

    def _command(self, filter_fd: int) -> list[str]:
        folders = dict.fromkeys(["/usr", sys.base_prefix])
        binds = [argument for folder in folders for argument in ("--ro-bind", folder, folder)]
        limits = [self.memory_bytes, math.ceil(self.timeout_seconds) + 1, self.output_bytes, MAX_OPEN_FILES, 0]
        python = str(Path(sys.executable).resolve())
        return [
            *(self.bwrap, "--unshare-all", "--unshare-user", "--die-with-parent", "--new-session", "--cap-drop", "ALL"),
            *binds,
            *_system_links(),
            *("--dev", "/dev", "--remount-ro", "/dev"),
            *("--size", str(16 * self.output_bytes), "--tmpfs", "/tmp", "--chdir", "/tmp", "--remount-ro", "/"),
            *("--seccomp", str(filter_fd)),
            *(python, "-I", "-S", "-c", _BOOT, *map(str, limits)),
        ]


def python_tool(timeout_seconds: float = 3.0) -> Tool:
    """The tool `run_python`, in a sandbox that was tried out.

    Errors:  ConfigError when there is no bubblewrap, or when it does not hold what it promises here.
    """
    bwrap = shutil.which("bwrap")
    if bwrap is None:
        raise ConfigError(
            "run_python needs bubblewrap, and there is no program bwrap here; install it (Debian, Ubuntu: "
            "apt install bubblewrap; Linux only) or leave run_python out"
        )
    sandbox = Sandbox(bwrap, timeout_seconds)
    _try_out(sandbox)

    def run_python(program: str) -> str:
        printed = sandbox.run(program)
        return printed if len(printed) <= MAX_ANSWER else f"{printed[:MAX_ANSWER]}... (cut)"

    parameters = {"program": {"type": "string", "description": "a Python 3 program that prints its result"}}
    return Tool("run_python", "Run a Python program and read what it prints", parameters, run_python)


def _try_out(sandbox: Sandbox) -> None:
    known = {"bin", "dev", "lib", "lib64", "tmp", "usr", Path(sys.base_prefix).parts[1]}
    try:
        with tempfile.NamedTemporaryFile() as canary, socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
            printed = sandbox.run(f"CANARY, PORT, KNOWN = {canary.name!r}, {port}, {known}\n{_PROBE}")
        holes = json.loads(printed)
        if not isinstance(holes, list):
            raise ValueError(f"it printed {printed[:100]!r}")
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())[-300:]
        raise ConfigError(f"run_python is refused: the sandbox does not work here: {reason}; leave it out") from error
    if holes:
        raise ConfigError(
            f"run_python is refused: the sandbox does not close off {', '.join(dict.fromkeys(holes))}; leave it out"
        )


def _file(data: bytes = b"") -> IO[bytes]:
    """A file without a name, to be read from its start."""
    file = tempfile.TemporaryFile()  # noqa: SIM115, whoever asked closes it
    file.write(data)
    file.seek(0)
    return file


def _system_links() -> list[str]:
    """/lib and its kin as they are on this system: links into /usr, or folders of their own."""
    arguments = []
    for folder in map(Path, ("/lib", "/lib64", "/bin")):
        if folder.is_symlink():
            arguments += ["--symlink", str(folder.readlink()), str(folder)]
        elif folder.is_dir():
            arguments += ["--ro-bind", str(folder), str(folder)]
    return arguments


def _system_call_filter() -> bytes:
    """A program for `bwrap --seccomp`, in the kernel's classic BPF.

    A process limit (RLIMIT_NPROC) would not do: the kernel does not hold it against root.
    """
    if platform.machine() not in _MACHINES:
        raise ValueError(f"no filter of system calls is known for {platform.machine()}")
    number, calls = _MACHINES[platform.machine()], _REFUSED[platform.machine()].values()
    load, jump_equal, jump_greater, give = 0x20, 0x15, 0x35, 0x06
    allow, refuse, kill = 0x7FFF0000, 0x00050001, 0x80000000
    # (operation, steps to skip if true, if false, operand); offset 4 holds the machine, 0 the number of the call.
    # From 0x40000000 on are the calls of x32, a second way to say the same.
    program = [(load, 0, 0, 4), (jump_equal, 1, 0, number), (give, 0, 0, kill), (load, 0, 0, 0)]
    program += [(jump_greater, len(calls) + 1, 0, 0x40000000)]
    program += [(jump_equal, len(calls) - place, 0, call) for place, call in enumerate(calls)]
    program += [(give, 0, 0, allow), (give, 0, 0, refuse)]
    return b"".join(struct.pack("HBBI", *step) for step in program)
