"""How long and in how large steps to train, where that is not given: from how much data there is.

Enough data ask for nothing: one pass in steps of 4,096 tokens. Of little data one pass is a handful of large steps,
over before the rates are up. So, until there are ENOUGH_STEPS (300 short conversations were answered as taught, 100 of
100, after 88 steps; a new model needs more):

1. a step is halved, down to 1,024 tokens, but to no less than a row or LEAST_LEARNT tokens that count: over short runs
   smaller steps learn more from the same tokens (docs/experiments/time-to-loss.md);
2. the data are passed over again. A text up to 4 times, as more of it teaches little (Muennighoff et al. 2023,
   arXiv:2305.16264); conversations up to 20 times, as what little there is of them is meant to be known.

The warm-up is a tenth of the run, 40 steps at most (`schedule.py`). What is given stays, and the rest follows from it.
"""

import math
from dataclasses import dataclass

from minimind.training.schedule import default_warmup
from minimind.training.settings import TrainConfig

__all__ = ["MOST_BATCH_TOKENS", "UNSET", "DataSize", "suited"]

ENOUGH_STEPS = {"text": 400, "conversation": 150}
MOST_BATCH_TOKENS = 4096
LEAST_BATCH_TOKENS = 1024
LEAST_LEARNT = 64
MOST_EPOCHS = {"text": 4, "conversation": 20}
# What is unset in `train`, and said once it is settled.
UNSET = ("epochs", "batch_tokens", "warmup_steps")


@dataclass(frozen=True)
class DataSize:
    """What there is to learn from.

    tokens:   of all documents
    learnt:   of them, those whose prediction counts
    context:  tokens of a row
    kind:     "text" or "conversation"
    """

    tokens: int
    learnt: int
    context: int
    kind: str

    def steps(self, batch_tokens: int, epochs: float) -> int:
        """About: rows are packed to within a percent."""
        rows = -(-self.tokens // self.context)
        return math.ceil(-(-rows // max(batch_tokens // self.context, 1)) * epochs)


def suited(train: TrainConfig, size: DataSize) -> tuple[TrainConfig, str]:
    """The settings with nothing unset, and a line that says what was chosen; "" where all was given."""
    batch_tokens = train.batch_tokens or _batch_tokens(train, size)
    epochs = train.epochs or _epochs(batch_tokens, size)
    steps = train.steps or size.steps(batch_tokens, epochs)
    warmup = default_warmup(steps) if train.warmup_steps is None else train.warmup_steps
    chosen = {"epochs": epochs, "batch_tokens": batch_tokens, "warmup_steps": warmup}
    unset = [name for name in UNSET if getattr(train, name) is None and not (name == "epochs" and train.steps)]
    line = ", ".join(f"train.{name} {chosen[name]:g}" for name in unset)
    because = f" for {size.tokens:,} tokens of data, of which {size.learnt:,} are learnt; what is given wins"
    return train.model_copy(update=chosen), line and line + because


def _batch_tokens(train: TrainConfig, size: DataSize) -> int:
    batch_tokens = MOST_BATCH_TOKENS
    while (
        batch_tokens // 2 >= LEAST_BATCH_TOKENS
        and batch_tokens // 2 * size.learnt >= LEAST_LEARNT * size.tokens
        and size.steps(batch_tokens, train.epochs or MOST_EPOCHS[size.kind]) < ENOUGH_STEPS[size.kind]
    ):
        batch_tokens //= 2
    return max(batch_tokens, size.context)


def _epochs(batch_tokens: int, size: DataSize) -> float:
    most = MOST_EPOCHS[size.kind]
    return next((n for n in range(1, most) if size.steps(batch_tokens, n) >= ENOUGH_STEPS[size.kind]), most)
