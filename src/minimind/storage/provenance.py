"""On what a run was made: versions, processor, revision, command line. Written to environment.json by `run.py`."""

import importlib.metadata
import os
import platform
import re
import shlex
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from minimind import __version__

__all__ = ["describe_environment", "without_home"]


def describe_environment() -> dict[str, Any]:
    """What a reader needs to judge or repeat the run; no host, user or home folder is named."""
    names = ("torch", "numpy", "tokenizers", "safetensors", "pydantic")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    program = Path(sys.argv[0]).name.replace("__main__.py", "minimind")
    command = shlex.join([program, *sys.argv[1:]])
    return {
        "python": platform.python_version(),
        "versions": {"minimind": __version__} | {name: version for name in names if (version := _version(name))},
        "system": f"{platform.system()} {platform.machine()}",
        "cpu": _processor(),
        "cores": cores,
        "gpus": _gpus(),
        "revision": _revision(),
        "command": without_home(command),
    }


def without_home(text: str) -> str:
    """A home folder names its user."""
    home = str(Path.home())
    return text if home == "/" else re.sub(rf"{re.escape(home)}(?=/|\W|$)", "~", text)


def _version(package: str) -> str | None:
    with suppress(importlib.metadata.PackageNotFoundError):
        return importlib.metadata.version(package)
    return None


def _processor() -> str:
    with suppress(OSError):
        if found := re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE):
            return found[1]
    return platform.processor()


def _gpus() -> list[str]:
    # A stage that computes has imported torch by now; one that has not does not need a graphics card either.
    torch = sys.modules.get("torch")
    return [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())] if torch else []


def _revision() -> str | None:
    """The git revision of a checkout of this package, with a + when files differ; None when installed otherwise."""
    root = Path(__file__).parents[2]
    if not (root / ".git").exists():
        return None
    with suppress(OSError, subprocess.SubprocessError):
        git = ["git", "-C", str(root)]
        found = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, timeout=5, check=True)
        changed = subprocess.run([*git, "diff", "--quiet", "HEAD"], capture_output=True, timeout=5).returncode
        return found.stdout.strip() + ("+" if changed else "")
    return None
