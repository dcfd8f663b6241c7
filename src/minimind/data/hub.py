"""Files of a dataset on the Hugging Face hub, fetched into its cache: `hf://owner/name[@revision][/path-or-glob]`.

The revision is turned into a commit first, so that all files are of one version and reports name it.
"""

import re
from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import Protocol
from urllib.parse import unquote

from minimind.errors import DataError, install

__all__ = ["HUB_PREFIX", "Hub", "HuggingFaceHub", "find_on_hub"]

HUB_PREFIX = "hf://"
ADDRESS = re.compile(
    r"hf://(?:datasets/)?(?P<repository>[^/@]+/[^/@]+)(?:@(?P<revision>refs/[^/]+/[^/]+|[^/]+))?(?:/(?P<pattern>.*))?"
)


class Hub(Protocol):
    """What is needed of a place that keeps versions of datasets."""

    def files(self, repository: str, revision: str) -> tuple[str, Sequence[str]]:
        """The commit that a revision stands for, and the names of its files."""
        ...

    def fetch(self, repository: str, commit: str, name: str) -> Path:
        """A file as a local path."""
        ...


class HuggingFaceHub:
    """The public hub, or the one that HF_ENDPOINT names."""

    def files(self, repository: str, revision: str) -> tuple[str, Sequence[str]]:
        from huggingface_hub import HfApi

        info = HfApi().dataset_info(repository, revision=revision)
        return info.sha or revision, [sibling.rfilename for sibling in info.siblings or []]

    def fetch(self, repository: str, commit: str, name: str) -> Path:
        from huggingface_hub import hf_hub_download

        return Path(hf_hub_download(repository, name, repo_type="dataset", revision=commit))


def find_on_hub(source: str, hub: Hub, is_data: Callable[[str], bool]) -> list[tuple[str, Path]]:
    """The data files that an address means, by name: (address with the commit, local path)."""
    match = ADDRESS.fullmatch(source)
    if match is None:
        raise DataError(f"{source}: expected hf://owner/name, then perhaps @revision and /path or /glob")
    repository, pattern = match["repository"], (match["pattern"] or "").rstrip("/")
    try:
        commit, names = hub.files(repository, unquote(match["revision"] or "main"))
        wanted = [name for name in sorted(names) if is_data(name) and _is_meant(name, pattern)]
        if not wanted:
            raise DataError(f"{source}: no data file matches; the dataset has {', '.join(sorted(names)[:10])}")
        return [(f"{HUB_PREFIX}{repository}@{commit}/{name}", hub.fetch(repository, commit, name)) for name in wanted]
    except DataError:
        raise
    except ImportError:
        raise DataError(f"{source}: needs huggingface_hub: {install('data')}") from None
    # The hub's client raises errors of its own, of its HTTP library and of the system; each means the same to a user.
    except Exception as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise DataError(f"{source}: cannot be fetched: {reason}") from error


def _is_meant(name: str, pattern: str) -> bool:
    """Is it the file, below the folder, or matched by the glob? An empty pattern means all but READMEs."""
    parts = PurePosixPath(name).parts
    if name == pattern:
        return True
    if parts[-1].upper().startswith(("README", "LICENSE", ".")):
        return False
    wanted = PurePosixPath(pattern).parts
    return parts[: len(wanted)] == wanted or _matches(parts, wanted)


def _matches(parts: tuple[str, ...], pattern: tuple[str, ...]) -> bool:
    """`*` stays within a folder, `**` stands for any number of folders."""
    if not pattern or not parts:
        return parts == pattern or pattern == ("**",)
    if pattern[0] == "**":
        return _matches(parts, pattern[1:]) or _matches(parts[1:], pattern)
    return fnmatchcase(parts[0], pattern[0]) and _matches(parts[1:], pattern[1:])
