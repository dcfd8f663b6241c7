"""A few real steps of a run that has not been started: what they take, and what they keep in memory.

The steps are the trainer's own, on the run's own rows, in the precision that the run would choose, but on a piece of a
step: what a step takes is the forward and backward pass of the piece as often as it has such pieces, and one update.
They are compiled only where that is asked for: to find out whether it pays takes minutes. Nothing is written but a file
of some megabytes, for a moment, to see how fast the disk is.
"""

import hashlib
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from minimind.data.loader import PackedRows
from minimind.interfaces import Batch
from minimind.model import Transformer
from minimind.objectives.next_token import NextToken
from minimind.training.compilation import compile_as_chosen
from minimind.training.device import fastest_dtype, reuse_freed_memory
from minimind.training.distributed import join
from minimind.training.job import Placement, Validation
from minimind.training.optimizer import optimizers_for
from minimind.training.room import state_sizes
from minimind.training.settings import TrainConfig
from minimind.training.trainer import Trainer

__all__ = ["Measures", "probe"]

DISK_BYTES = 64 * 2**20
LEAST_STEPS = 3
# Enough for products about as fast as those of a whole micro-batch.
PIECE_TOKENS = 1024


@dataclass(frozen=True, kw_only=True)
class Measures:
    """What the probe found.

    activation_bytes:  kept for the backward pass, for each position of a micro-batch
    trained:           parameters that have gradients
    state:             numbers that the optimisers keep
    largest_group:     numbers of the matrices that are updated together
    """

    step_seconds: float
    valid_seconds: float
    sample_seconds: float
    seconds_per_byte: float
    num_steps: int
    activation_bytes: float
    dtype: torch.dtype
    is_compiled: bool
    trained: int
    state: int
    largest_group: int


def probe(
    model: Transformer,
    source: Callable[[Placement], PackedRows],
    validation: Callable[[Placement], Validation] | None,
    sample: Callable[[], object],
    settings: TrainConfig,
    *,
    total_steps: int,
    seconds: float,
) -> Measures:
    """Train for about so many seconds, at least a few steps; the model is spoilt by it."""
    reuse_freed_memory()
    world = join(settings.device)
    model.to(world.device).train()
    model.recompute_blocks = settings.recompute
    choice = {"float32": torch.float32, "bfloat16": torch.bfloat16}
    dtype = choice.get(settings.dtype) or fastest_dtype(world.device)
    placement = Placement(world, dtype, settings)
    piece = _Piece(source(placement))
    trainer = Trainer(
        model=model,
        objective=NextToken(settings.router_coefficient),
        source=piece,
        optimizers=optimizers_for(model, settings, dtype),
        settings=settings,
        total_steps=total_steps,
        world=world,
        precision=placement.precision,
    )
    activations = _activation_bytes(trainer)
    choice = "on" if settings.compile == "on" else "off"
    is_compiled = compile_as_chosen(choice, model, trainer.rehearse, total_steps)
    steps = _steps(trainer, piece.times, seconds)
    trained, state, largest = state_sizes(model, trainer.optimizers)
    return Measures(
        step_seconds=sum(steps) / len(steps),
        valid_seconds=_seconds(lambda: validation(placement)(trainer)) if validation is not None else 0.0,
        sample_seconds=_seconds(lambda: _sampled(model, sample)),
        seconds_per_byte=_disk_seconds() / DISK_BYTES,
        num_steps=len(steps),
        activation_bytes=activations,
        dtype=dtype,
        is_compiled=is_compiled,
        trained=trained,
        state=state,
        largest_group=largest,
    )


def _activation_bytes(trainer: Trainer) -> float:
    """Bytes for each position of the first micro-batch: each storage once, weights left out."""
    batch = trainer.source.micro_batches(0)[0]
    weights = {parameter.untyped_storage().data_ptr() for parameter in trainer.model.parameters()}
    kept: dict[int, Tensor] = {}

    def pack(tensor: Tensor) -> Tensor:
        # Held until the count is over, so that no address is used twice.
        kept.setdefault(tensor.untyped_storage().data_ptr(), tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = trainer.sum_of(batch)
    size = sum(tensor.untyped_storage().nbytes() for place, tensor in kept.items() if place not in weights)
    loss.total.backward()
    trainer.optimizers.zero_grad()
    return size / batch.tokens.numel()


class _Piece:
    """The first rows of each step, as many as make one piece. times: pieces of a whole step"""

    def __init__(self, rows: PackedRows) -> None:
        self._rows = rows
        self._count = max(1, min(PIECE_TOKENS // rows.context, rows.items_per_step // rows.accumulate))
        self.times = rows.items_per_step / self._count

    def micro_batches(self, step: int) -> list[Batch]:
        return [self._rows.batch_of([self._rows.rows[i] for i in self._rows.items_of_step(step)[: self._count]])]

    def accepts(self, figures: Mapping[str, float]) -> bool:
        return True


def _steps(trainer: Trainer, times: float, seconds: float) -> list[float]:
    """What steps of so many pieces take, but for the first, which asks for memory and makes the optimisers' state."""
    trainer.update()
    found: list[float] = []
    spent = 0.0
    while len(found) < LEAST_STEPS or spent < seconds:
        passes, whole = _seconds(trainer.rehearse), _seconds(trainer.update)
        found.append(passes * times + max(whole - passes, 0.0))
        spent += passes + whole
    return found


def _sampled(model: Transformer, sample: Callable[[], object]) -> None:
    with _evaluating(model):
        sample()


@contextmanager
def _evaluating(model: Transformer) -> Iterator[None]:
    model.eval()
    try:
        yield
    finally:
        model.train()


def _seconds(action: Callable[[], object]) -> float:
    start = time.perf_counter()
    action()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


def _disk_seconds() -> float:
    """To write, flush and hash a file: what saving a checkpoint is."""
    content = os.urandom(2**20) * (DISK_BYTES // 2**20)

    def save() -> None:
        with tempfile.NamedTemporaryFile(dir=".") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        hashlib.sha256(content).hexdigest()

    return _seconds(save)
