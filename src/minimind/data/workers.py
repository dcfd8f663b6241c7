"""Encode chunks in several processes; what comes out does not depend on how many.

Processes and not threads, because parsing and rendering hold the interpreter's lock. Started afresh and not forked,
because a fork copies the locks of threads that it does not copy.
"""

import os
import signal
import threading
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import chain, islice
from multiprocessing import get_context, parent_process
from tempfile import TemporaryDirectory

from minimind.data.chunks import Chunk
from minimind.data.encode import EncodedChunk, Encoder, EncodeSettings
from minimind.errors import DataError
from minimind.tokenizer import Tokenizer

__all__ = ["encode_chunks"]

# Fewer chunks than this are encoded here: starting processes would take longer.
FEW_CHUNKS = 4


def encode_chunks(
    chunks: Iterable[Chunk], tokenizer: Tokenizer, settings: EncodeSettings, workers: int = 1
) -> Generator[EncodedChunk, None, None]:
    """Encode chunks, in their order, in `workers` processes; 0 is one for each core. Holds a few chunks a worker."""
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
        executor = ProcessPoolExecutor(
            workers, mp_context=get_context("spawn"), initializer=_start_worker, initargs=(folder, settings)
        )
        try:
            yield from _in_order(executor, chain(first, chunks), 2 * workers + 1)
        except BrokenProcessPool as error:
            raise DataError(
                "a process that encodes died: for lack of memory (then try fewer workers), or because a script calls "
                "prepare outside of `if __name__ == '__main__':`"
            ) from error
        finally:
            executor.shutdown(cancel_futures=True)


def _in_order(executor: ProcessPoolExecutor, chunks: Iterable[Chunk], ahead: int) -> Iterator[EncodedChunk]:
    pending: deque[Future[EncodedChunk]] = deque()
    for chunk in chunks:
        pending.append(executor.submit(_encode, chunk))
        if len(pending) >= ahead:
            yield pending.popleft().result()
    while pending:
        yield pending.popleft().result()


_encoder: Encoder | None = None


def _start_worker(folder: str, settings: EncodeSettings) -> None:
    global _encoder
    # Ctrl-C reaches every process of a terminal; the parent decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    # The processes are the parallelism; threads in each would fight for the same cores.
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    _encoder = Encoder(Tokenizer.load(folder), settings)


def _leave_with_parent() -> None:
    """A parent that was killed cannot say goodbye, and its workers would wait for work for ever."""
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _encode(chunk: Chunk) -> EncodedChunk:
    assert _encoder is not None, "_start_worker runs first"
    return _encoder(chunk)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
