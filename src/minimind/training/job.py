"""What a stage brings to `fit.py`: a model, an objective, and how to make its source and its validation here."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from minimind.config import Config
from minimind.interfaces import Objective
from minimind.training.device import precision_context
from minimind.training.distributed import World
from minimind.training.epoch_source import EpochSource
from minimind.training.settings import UpdateConfig
from minimind.training.trained_model import TrainedModel
from minimind.training.trainer import Trainer

__all__ = ["Placement", "TrainingJob", "Validation"]

# The trainer -> held-out figures by name.
Validation = Callable[[Trainer], Mapping[str, float]]


@dataclass(frozen=True)
class Placement:
    """Where and how a run computes, once that is decided: what sources and validations are made for."""

    world: World
    dtype: torch.dtype
    settings: UpdateConfig

    def precision(self) -> torch.autocast:
        return precision_context(self.world.device, self.dtype)


@dataclass(frozen=True, kw_only=True)
class TrainingJob:
    """What a stage brings.

    module:     what the objective takes; by default the model itself
    source:     made on each rank, when the model is on its device and has the weights to begin with
    validation: likewise
    sample:     (prompt, text) pairs to keep beside the curves
    inputs:     option -> fingerprint of what lies where it points; a run is not resumed with another
    """

    name: str
    folder: Path
    config: Config
    train: UpdateConfig
    context: int
    trained: TrainedModel
    module: nn.Module | None = None
    objective: Objective[Any, Any]
    source: Callable[[Placement], EpochSource]
    validation: Callable[[Placement], Validation] | None
    sample: Callable[[], list[tuple[str, str]]] = list
    inputs: Mapping[str, str] = field(default_factory=dict)
