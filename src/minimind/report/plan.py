"""What a run will cost before it is started, as numbers: operations, memory by part, time, disk, and what would fit.

    operations of a token = 6 · (matrices of the blocks) + 6 · (output head) · (share that is learnt)
                          + 12 · layers · query heads · head width · (positions it sees, on average)

Each product takes 2 operations per weight and token forward and 4 backward, attention's two products likewise; looking
up an embedding is free, and of experts only the chosen ones count. `stages/plan/probe.py` measures what
cannot be computed.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from minimind.model import ModelConfig
from minimind.objectives.cross_entropy import SLICE_TOKENS
from minimind.report.parameters import count_parameters

__all__ = ["Cost", "Memory", "Shape", "advice_for_hours", "advice_for_memory", "operations_per_token", "positions_seen"]

FLOAT_BYTES = 4
# What Python, torch and its libraries take before a model is made.
PROGRAM_BYTES = 400 * 2**20
SECONDS = 3600


@dataclass(frozen=True, kw_only=True)
class Shape:
    """How much a step computes.

    tokens:      of a step, over all its micro-batches
    accumulate:  micro-batches
    seen:        positions that a token attends to, on average
    learnt:      share of the tokens whose prediction counts
    """

    model: ModelConfig
    context: int
    tokens: int
    accumulate: int
    seen: float
    learnt: float = 1.0

    @property
    def micro_tokens(self) -> int:
        """Positions that are in memory at once: whole rows."""
        rows = self.tokens // self.context
        return math.ceil(rows / min(self.accumulate, rows)) * self.context

    @property
    def most_micro_batches(self) -> int:
        """A row cannot be cut."""
        return self.tokens // self.context


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Bytes at the peak of a step, by part.

    activations:  what the backward pass needs, of one micro-batch
    logits:       one slice of them
    update:       what the optimiser holds while it updates; activations are gone by then
    """

    weights: int
    gradients: int
    optimizer: int
    activations: int
    logits: int
    update: int

    @property
    def total(self) -> int:
        held = self.weights + self.gradients + self.optimizer
        return PROGRAM_BYTES + held + max(self.activations + self.logits, self.update)

    @classmethod
    def of(
        cls, shape: Shape, *, trained: int, state: int, activation_bytes: float, largest_group: int, dtype_bytes: int
    ) -> "Memory":
        """trained:           parameters that have gradients
        state:             numbers that the optimisers keep
        activation_bytes:  for each position of a micro-batch
        largest_group:     numbers of the matrices that are updated together
        dtype_bytes:       of a number in the matrix products
        """
        total = count_parameters(shape.model).total
        return cls(
            weights=FLOAT_BYTES * total,
            gradients=FLOAT_BYTES * trained,
            optimizer=FLOAT_BYTES * state,
            activations=round(activation_bytes * shape.micro_tokens),
            # The logits in the products' type, their log-softmax in float32, and its copy for the product behind it.
            logits=SLICE_TOKENS * shape.model.vocab_size * (FLOAT_BYTES + 2 * dtype_bytes),
            # The directions, one by one and stacked; then, in the products' type, what the iteration reads and writes.
            update=largest_group * (2 * FLOAT_BYTES + 3 * dtype_bytes),
        )


@dataclass(frozen=True, kw_only=True)
class Cost:
    """How often each thing is done, and how many seconds it takes each time."""

    times: Mapping[str, int]
    seconds_each: Mapping[str, float]

    @property
    def seconds(self) -> dict[str, float]:
        return {name: count * self.seconds_each[name] for name, count in self.times.items()}

    @property
    def total(self) -> float:
        return math.fsum(self.seconds.values())


def operations_per_token(shape: Shape) -> float:
    """Floating-point operations that the mathematics needs, forward and backward, for one token."""
    config, counted = shape.model, count_parameters(shape.model)
    parts = dict(counted.parts)
    head = parts.pop("output head", parts["embedding"])
    del parts["embedding"]
    idle = counted.total - counted.active
    matrices = sum(parts.values()) - parts.get("norms", 0) - idle
    attention = config.num_hidden_layers * config.num_attention_heads * config.head_dim * shape.seen
    return 6 * (matrices + head * shape.learnt) + 12 * attention


def positions_seen(sizes: Sequence[int] | np.ndarray) -> float:
    """How many positions a token sees, itself included, on average over documents or pieces of these sizes."""
    sizes = np.asarray(sizes, dtype=np.float64)
    return float((sizes * (sizes + 1) / 2).sum() / sizes.sum())


def advice_for_memory(shape: Shape, memory: Memory, limit: float, *, recompute: bool) -> list[str]:
    """What brings the peak below `limit` bytes: options to give, the cheapest first."""
    if memory.total <= limit:
        return [f"it fits into {_gigabytes(limit)}: its peak is about {_gigabytes(memory.total)}"]
    for is_recomputed in (False,) if recompute else (False, True):
        accumulate = _least_that_fits(shape, memory, limit, recompute=is_recomputed)
        if accumulate is not None:
            more = " and --train.recompute (a third slower)" if is_recomputed else " (the same loss, about as fast)"
            peak = _with(shape, memory, accumulate, recompute=is_recomputed).total
            return [f"--train.accumulate {accumulate}{more}: about {_gigabytes(peak)}"]
    held = memory.weights + memory.gradients + memory.optimizer
    return [
        f"no cut of the batch fits into {_gigabytes(limit)}: weights, gradients and optimiser alone take "
        f"{_gigabytes(held)}",
        "a smaller model (hidden_size, num_hidden_layers), a shorter data.context, or, from a model that is there, "
        "an adapter (--lora.rank 8)",
    ]


def advice_for_hours(steps: int, cost: Cost, hours: float, tokens_per_step: int) -> list[str]:
    """What ends within so many hours."""
    if cost.total <= hours * SECONDS:
        return [f"it ends within {hours:g} h: {cost.total / SECONDS:.2f} h are predicted"]
    possible = int(steps * hours * SECONDS / cost.total)
    if possible < 1:
        return [f"not even one step ends within {hours:g} h; a smaller model or a shorter context"]
    share = possible / steps
    return [
        f"--train.steps {possible}: {share:.0%} of the steps, {possible * tokens_per_step:,} tokens",
        f"a model of {share:.0%} of the operations per token, on all the data",
        f"{math.ceil(1 / share)} processes on as many devices like this one (torchrun)",
    ]


def _least_that_fits(shape: Shape, memory: Memory, limit: float, *, recompute: bool) -> int | None:
    """The fewest micro-batches, doubling, whose peak is below the limit."""
    accumulate = shape.accumulate
    while True:
        accumulate = min(accumulate, shape.most_micro_batches)
        if _with(shape, memory, accumulate, recompute=recompute).total <= limit:
            return accumulate
        if accumulate == shape.most_micro_batches:
            return None
        accumulate *= 2


def _with(shape: Shape, memory: Memory, accumulate: int, *, recompute: bool) -> Memory:
    """The memory of the same run, cut otherwise."""
    cut = replace(shape, accumulate=accumulate)
    activations = memory.activations * cut.micro_tokens / shape.micro_tokens
    if recompute:
        # Of each block only its input is kept, and one block at a time is computed anew.
        kept = FLOAT_BYTES * shape.model.hidden_size * shape.model.num_hidden_layers * cut.micro_tokens
        activations = min(activations, kept + activations / shape.model.num_hidden_layers)
    return replace(memory, activations=round(activations))


def _gigabytes(size: float) -> str:
    return f"{size / 1e9:.2f} GB"
