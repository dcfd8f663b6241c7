"""The two sides: training as `minimind` does it, and the loop one would write otherwise.

`trainer` is what `minimind pretrain` and `minimind sft` assemble, without run folder, validation and checkpoints.
`PaddedLoop` is the usual script: one document a row, cut or padded to one width, all logits, cross entropy, AdamW.
"""

import argparse
import math
import time
import tomllib
from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from common import Encoded, typical_seconds
from torch import Tensor, nn

from minimind.config import RECIPES, load
from minimind.data.loader import PackedRows
from minimind.errors import ConfigError
from minimind.model import ModelConfig, Transformer
from minimind.objectives.next_token import NextToken
from minimind.training.compilation import compile_blocks
from minimind.training.device import precision_context
from minimind.training.optimizer import optimizers_for
from minimind.training.settings import TrainConfig
from minimind.training.trainer import Trainer

__all__ = ["IGNORED", "PaddedLoop", "TimedRun", "add_train_options", "train_settings", "trainer"]

CPU = torch.device("cpu")
# The label that F.cross_entropy leaves out.
IGNORED = -100
# A run plans to end a little early: stopping a schedule before its end costs more than a hundredth of the time.
PLANNED_SHARE = 0.99
# After so many steps their own mean says more about the rest than the measurement before them.
STEPS_TO_TRUST = 10


def add_train_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="an option of TrainConfig")


def train_settings(
    parser: argparse.ArgumentParser, shape: str, assignments: Sequence[str] = (), *, stage: str = "3-pretrain"
) -> TrainConfig:
    """What the shape's own recipe trains with, where it has one, or else the defaults; then what --set changes."""
    recipe = RECIPES / shape / f"{stage}.toml"
    values = tomllib.loads(recipe.read_text(encoding="utf-8")).get("train", {}) if recipe.is_file() else {}
    # Figures of other days are compared with these, so no amount of data may move them.
    overrides = {"batch_tokens": "4096", "warmup_steps": "40"} | {name: str(value) for name, value in values.items()}
    overrides |= {name: value for name, _, value in (assignment.partition("=") for assignment in assignments)}
    try:
        return load(TrainConfig, overrides=overrides)
    except ConfigError as error:
        parser.error(f"--set: {error}")


def trainer(
    config: ModelConfig,
    documents: Encoded,
    settings: TrainConfig,
    *,
    dtype: torch.dtype,
    context: int = 1024,
    total_steps: int = 1_000_000,
) -> Trainer:
    """A fresh model of this shape, and what trains it. `compile` "auto" never compiles a run this short."""
    torch.manual_seed(settings.seed)
    model = Transformer(config)
    model.recompute_blocks = settings.recompute
    if settings.compile == "on":
        compile_blocks(model)
    return Trainer(
        model=model,
        objective=NextToken(settings.router_coefficient),
        source=PackedRows(
            documents,
            context=context,
            batch_tokens=settings.batch_tokens or 0,
            seed=settings.seed,
            accumulate=settings.accumulate,
        ),
        optimizers=optimizers_for(model, settings, dtype),
        settings=settings,
        total_steps=total_steps,
        precision=lambda: precision_context(CPU, dtype),
    )


class TimedRun:
    """Our training with a schedule that ends when the time is up.

    The number of steps is planned from a short measurement with a model that is thrown away, and planned anew while the
    rate is level, when it changes nothing yet: a run with `train.steps` = `trainer.total_steps` learns the same. With
    `steps` in the settings they decide. The clock runs during steps alone, batches made in them included.
    """

    def __init__(self, make: Callable[[], Trainer], seconds: float) -> None:
        self.budget, self.seconds = seconds, 0.0
        self.trainer = make()
        if self.trainer.settings.steps:
            self.budget, self.trainer.total_steps = math.inf, self.trainer.settings.steps
            return
        self._per_step = typical_seconds(make().update, at_least=min(5.0, seconds / 20))
        self._plan()

    @property
    def is_over(self) -> bool:
        return self.seconds >= self.budget or self.trainer.step >= self.trainer.total_steps

    @property
    def tokens(self) -> int:
        return self.trainer.tokens

    def step(self) -> None:
        begin = time.perf_counter()
        self.trainer.update()
        self.seconds += time.perf_counter() - begin
        if self._is_level:
            self._per_step = self.seconds / self.trainer.step
            self._plan()

    @property
    def _is_level(self) -> bool:
        """The rate is at its peak, or rises to it, whatever the number of steps."""
        end = self.trainer.total_steps * (1 - self.trainer.settings.cooldown)
        return math.isfinite(self.budget) and STEPS_TO_TRUST <= self.trainer.step < end

    def _plan(self) -> None:
        left = int((self.budget * PLANNED_SHARE - self.seconds) / self._per_step)
        self.trainer.total_steps = self.trainer.step + max(1, left)


class PaddedLoop:
    """The usual loop: rows of one document, `width` positions wide, in the order of a permutation.

    logits:  [B, T] ids -> [B, T, V]
    The rows are made before the clock starts, and AdamW is the fused one: both better than what scripts usually do.
    """

    def __init__(
        self,
        model: nn.Module,
        documents: Encoded,
        *,
        width: int,
        batch: int,
        dtype: torch.dtype,
        logits: Callable[[Tensor], Tensor] | None = None,
        lr: float = 5e-4,
    ) -> None:
        self.model, self.batch, self.dtype = model, batch, dtype
        self._logits = logits or model
        self.inputs, self.labels, counts = _padded(documents, width)
        self.real_per_row = float(counts.mean())
        self.share_kept = float(counts.sum() / (documents.lengths - 1).sum())
        self._counts = counts
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=lr, fused=True)
        self._order = torch.Generator().manual_seed(0)
        self._rest = torch.empty(0, dtype=torch.int64)
        self.tokens = 0

    @property
    def real_per_step(self) -> float:
        """Positions of a step that are not padding, on average over the data."""
        return self.real_per_row * self.batch

    def step(self) -> None:
        rows = self._next_rows()
        with precision_context(CPU, self.dtype):
            scores = self._logits(self.inputs[rows])
        loss = F.cross_entropy(scores.float().flatten(0, 1), self.labels[rows].flatten(), ignore_index=IGNORED)
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.tokens += int(self._counts[rows.numpy()].sum())

    def set_rate(self, lr: float) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = lr

    def _next_rows(self) -> Tensor:
        if len(self._rest) < self.batch:
            self._rest = torch.cat([self._rest, torch.randperm(len(self.inputs), generator=self._order)])
        rows, self._rest = self._rest.split([self.batch, len(self._rest) - self.batch])
        return rows


def _padded(documents: Encoded, width: int) -> tuple[Tensor, Tensor, np.ndarray]:
    """Inputs and labels [N, width], and the real positions of each row: those with an id that follows."""
    inputs = np.zeros((len(documents), width), dtype=np.int64)
    labels = np.full_like(inputs, IGNORED)
    for row, (ids, weights) in enumerate(zip(documents.ids, documents.weights, strict=True)):
        size = min(len(ids) - 1, width)
        inputs[row, :size] = ids[:size]
        labels[row, :size] = np.where(weights[1 : size + 1] > 0, ids[1 : size + 1], IGNORED)
    counts = np.minimum(documents.lengths - 1, width)
    return torch.from_numpy(inputs), torch.from_numpy(labels), counts
