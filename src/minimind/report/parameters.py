"""Where a model's parameters are, from its shape alone: no weight is made for it."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from minimind.model import ModelConfig, Transformer

__all__ = ["Parameters", "count_parameters"]

# Part -> what the names of its parameters contain. The first that fits counts.
PARTS = {
    "embedding": ("embed_tokens",),
    "output head": ("lm_head",),
    "norms": ("norm",),
    "attention": ("self_attn",),
    "router": ("mlp.gate.",),
    "experts": ("mlp.experts",),
    "feed-forward": ("mlp.",),
}


@dataclass(frozen=True)
class Parameters:
    """Numbers of a model.

    parts:   name -> numbers, in the order of `PARTS`, empty parts left out
    active:  those that one token meets: of the experts, only the chosen ones
    """

    parts: Mapping[str, int]
    active: int

    @property
    def total(self) -> int:
        return sum(self.parts.values())


def count_parameters(config: ModelConfig) -> Parameters:
    """The parameters of this shape by part."""
    with torch.device("meta"):
        model = Transformer(config)
    parts = dict.fromkeys(PARTS, 0)
    for name, parameter in model.named_parameters():
        part = next(part for part, marks in PARTS.items() if any(mark in name for mark in marks))
        parts[part] += math.prod(parameter.shape)
    found = {part: number for part, number in parts.items() if number}
    total = sum(found.values())
    if not config.num_experts:
        return Parameters(found, total)
    idle = parts["experts"] * (config.num_experts - config.num_experts_per_tok) // config.num_experts
    return Parameters(found, total - idle)
