"""Several processes: the same chunks in the same order, and none that stays behind."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from minimind.data.chunks import RowValues
from minimind.data.encode import EncodedChunk, EncodeSettings
from minimind.data.workers import encode_chunks
from minimind.errors import DataError
from minimind.text.tokenizer import Tokenizer

SETTINGS = EncodeSettings("text", "text")
CHUNKS = [
    RowValues("f", number, number, ({"text": f"the cat {number}"}, {"text": "sat " * (97 - number) * 9}))
    for number in range(1, 30)
]


def facts(chunks: list[EncodedChunk]) -> list[object]:
    return [(c.position, c.num_lines, [(d.hash, d.ids.tolist()) for d in c.documents], c.bad) for c in chunks]


def test_the_number_of_processes_changes_nothing(tokenizer: Tokenizer) -> None:
    alone = list(encode_chunks(CHUNKS, tokenizer, SETTINGS, workers=1))
    assert [chunk.position for chunk in alone] == list(range(1, 30))
    assert facts(list(encode_chunks(CHUNKS, tokenizer, SETTINGS, workers=2))) == facts(alone)


def test_only_a_few_chunks_are_taken_ahead(tokenizer: Tokenizer) -> None:
    taken = iter(CHUNKS)
    with closing(encode_chunks(taken, tokenizer, SETTINGS, workers=2)) as encoded:
        next(encoded)
        assert len(list(taken)) >= len(CHUNKS) - 5


def test_an_error_in_the_chunks_arrives_and_ends_the_processes(tokenizer: Tokenizer) -> None:
    def broken() -> Iterator[RowValues]:
        yield from CHUNKS[:6]
        raise DataError("x.jsonl: cannot be read")

    with pytest.raises(DataError, match="cannot be read"):
        list(encode_chunks(broken(), tokenizer, SETTINGS, workers=2))


def test_a_worker_that_is_killed_is_an_error_and_not_a_silence(tokenizer: Tokenizer) -> None:
    with closing(encode_chunks(CHUNKS * 20, tokenizer, SETTINGS, workers=2)) as encoded:
        next(encoded)
        os.kill(multiprocessing.active_children()[0].pid or 0, signal.SIGKILL)
        with pytest.raises(DataError, match=r"^a process that encodes ended with code -9: "):
            list(encoded)
    assert not multiprocessing.active_children()


PROGRAM = """
import sys, time
from minimind.data.chunks import RowValues
from minimind.data.encode import EncodeSettings
from minimind.data.workers import encode_chunks
from minimind.text.tokenizer import Tokenizer
import multiprocessing

if __name__ == "__main__":
    chunks = [RowValues("f", 0, 1, ({"text": "the cat"},))] * 30
    for _ in encode_chunks(chunks, Tokenizer.load(sys.argv[1]), EncodeSettings("text", "text"), workers=2):
        print(*[child.pid for child in multiprocessing.active_children()], flush=True)
        time.sleep(60)
"""


def test_workers_leave_when_their_parent_is_killed(tmp_path: Path, tokenizer: Tokenizer) -> None:
    tokenizer.save(tmp_path / "tokenizer")
    (tmp_path / "program.py").write_text(PROGRAM)
    command = [sys.executable, str(tmp_path / "program.py"), str(tmp_path / "tokenizer")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as parent:
        assert parent.stdout is not None
        children = [int(pid) for pid in parent.stdout.readline().split()]
        parent.send_signal(signal.SIGKILL)
    assert len(children) == 2
    for _ in range(100):
        if not any(map(_is_running, children)):
            return
        time.sleep(0.1)
    pytest.fail("workers outlived their parent by ten seconds")


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # Where nobody reaps orphans, a process that has ended stays listed as a zombie.
    status = Path(f"/proc/{pid}/stat")
    return not (status.exists() and status.read_text().rpartition(")")[2].split()[0] == "Z")
