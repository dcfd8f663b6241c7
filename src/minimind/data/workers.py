"""Encode chunks in several processes; what comes out does not depend on how many.

Processes and not threads, because parsing and rendering hold the interpreter's lock. Started afresh and not forked,
because a fork copies the locks of threads that it does not copy. Each has a pipe of its own and chunks go round in
turn: if a worker dies or the parent is killed, the other end sees its pipe close; a shared queue or lock could hang.
"""

import os
import signal
import threading
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from itertools import chain, cycle, islice
from multiprocessing import get_context, resource_tracker
from multiprocessing.connection import Connection
from queue import SimpleQueue
from tempfile import TemporaryDirectory

from minimind.data.chunks import Chunk
from minimind.data.encode import EncodedChunk, Encoder, EncodeSettings
from minimind.errors import DataError
from minimind.text.tokenizer import Tokenizer

__all__ = ["encode_chunks"]

# Fewer chunks than this are encoded here: starting processes would take longer.
FEW_CHUNKS = 4
# One chunk to encode, one to go on with.
CHUNKS_EACH = 2


def encode_chunks(
    chunks: Iterable[Chunk], tokenizer: Tokenizer, settings: EncodeSettings, workers: int = 1
) -> Generator[EncodedChunk, None, None]:
    """Encode chunks, in their order, in `workers` processes; 0 is one for each core. Holds two chunks a worker."""
    chunks = iter(chunks)
    workers = workers or _cores()
    first = list(islice(chunks, FEW_CHUNKS))
    encoder = Encoder(tokenizer, settings)
    if workers == 1 or len(first) < FEW_CHUNKS:
        yield from map(encoder, chain(first, chunks))
        return
    with TemporaryDirectory() as folder:
        # Workers load the tokenizer from files, as any other program would.
        tokenizer.save(folder)
        team: list[_Worker] = []
        try:
            with _interrupts_held():
                team.extend(_Worker(folder, settings) for _ in range(workers))
            yield from _in_turn(team, chain(first, chunks))
        finally:
            for worker in team:
                worker.close()


def _in_turn(team: "list[_Worker]", chunks: Iterable[Chunk]) -> Iterator[EncodedChunk]:
    busy: deque[_Worker] = deque()
    for worker, chunk in zip(cycle(team), chunks, strict=False):
        worker.send(chunk)
        busy.append(worker)
        if len(busy) == CHUNKS_EACH * len(team):
            yield busy.popleft().receive()
    while busy:
        yield busy.popleft().receive()


class _Worker:
    """A process and the pipe to it."""

    def __init__(self, folder: str, settings: EncodeSettings) -> None:
        context = get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_work, args=(theirs, folder, settings), daemon=True)
        self._process.start()
        theirs.close()

    def send(self, chunk: Chunk) -> None:
        try:
            self._pipe.send(chunk)
        except OSError as error:
            raise self._died() from error

    def receive(self) -> EncodedChunk:
        try:
            return self._pipe.recv()
        except (EOFError, OSError) as error:
            raise self._died() from error

    def close(self) -> None:
        self._pipe.close()
        self._process.join()
        self._process.close()

    def _died(self) -> DataError:
        self._process.join()
        return DataError(
            f"a process that encodes ended with code {self._process.exitcode}: if killed for lack of memory, use "
            "fewer workers; a script has to call prepare under `if __name__ == '__main__':`"
        )


def _work(pipe: Connection, folder: str, settings: EncodeSettings) -> None:
    """A worker's life: encode what arrives, until the pipe ends."""
    # The processes are the parallelism; threads in each would fight for the same cores.
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    encoder = Encoder(Tokenizer.load(folder), settings)
    inbox: SimpleQueue[Chunk] = SimpleQueue()
    threading.Thread(target=_take_in, args=(pipe, inbox), daemon=True).start()
    while True:
        pipe.send(encoder(inbox.get()))


def _take_in(pipe: Connection, inbox: "SimpleQueue[Chunk]") -> None:
    """Take chunks while others are encoded, or both ends could wait for the other to read."""
    try:
        while True:
            inbox.put(pipe.recv())
    except (EOFError, OSError):
        # The parent is done, or gone. Nothing here is worth finishing.
        os._exit(0)


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Ctrl-C reaches every process of a terminal; children that are born here leave it to their parent."""
    # The first child starts a tracker of resources too, which would unblock the signal.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
