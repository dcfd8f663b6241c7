"""LoRA: the model stays as it is, and beside each linear layer a thin pair of matrices learns.

    y = W x + (alpha / rank) B A x        A [rank, in], B [out, rank]

B begins at zero, so a fresh adapter changes nothing, bit for bit; and B A can be added to W afterwards, so a merged
model costs nothing more than its base. The layers are those of the blocks: attention and feed-forward, each expert of a
mixture too. The embedding, the head and the routers are never among them: the first two are one matrix in small models,
and a router is a few directions, which a low rank cannot make cheaper.

Names and meaning are those of the PEFT library, so that `storage/adapters.py` writes files that it reads.
Source:  Hu et al. 2021, arXiv:2106.09685.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minimind.errors import CheckpointError, ConfigError

__all__ = [
    "MAX_ALPHA",
    "MAX_RANK",
    "TARGETS",
    "LoraConfig",
    "LoraLinear",
    "add_lora",
    "has_lora",
    "load_lora_weights",
    "lora_shapes",
    "lora_weights",
    "merge_lora",
    "remove_lora",
]

# The linear layers of a block, as `model.py` and Hugging Face name them.
TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
# Beyond the width of any model here a rank saves nothing; a hostile file must not choose how much memory is taken.
MAX_RANK = 4096
MAX_ALPHA = 1_000_000


@dataclass(frozen=True)
class LoraConfig:
    """How much an adapter can learn, and where.

    alpha is the rank unless given: a scale of 1, which is what PEFT's own defaults (rank 8, alpha 8) come to and what
    MiniMind's own files mean; the scale then stays when the rank changes, and so does a good learning rate.
    Errors:  ConfigError for a value out of bounds, or a layer that no block has.
    """

    rank: Annotated[int, "Inner width of the pair of matrices beside a layer."] = 8
    alpha: Annotated[float | None, "The pair counts alpha / rank times; none is the rank, that is, once."] = None
    dropout: Annotated[float, "Share of a pair's inputs left out in training."] = 0.0
    targets: Annotated[tuple[str, ...], f"Layers to adapt, some of {', '.join(TARGETS)}; none given is all."] = ()

    def __post_init__(self) -> None:
        bounds = {
            "rank": (1 <= self.rank <= MAX_RANK, f"from 1 to {MAX_RANK}"),
            "alpha": (self.alpha is None or 0 < self.alpha <= MAX_ALPHA, f"above 0, at most {MAX_ALPHA}"),
            "dropout": (0 <= self.dropout < 1, "at least 0, below 1"),
        }
        for name, (holds, expected) in bounds.items():
            if not holds:
                raise ConfigError(f"lora.{name} is {getattr(self, name)!r}; expected {expected}")
        for name in self.targets:
            if name not in TARGETS:
                raise ConfigError(f"lora.targets has {name!r:.80}; expected some of {', '.join(TARGETS)}")

    @property
    def scale(self) -> float:
        return 1.0 if self.alpha is None else self.alpha / self.rank

    @property
    def layers(self) -> tuple[str, ...]:
        """The names of the adapted layers, always in the same order."""
        return tuple(name for name in TARGETS if name in (self.targets or TARGETS))


class LoraLinear(nn.Module):
    """A linear layer with a pair of matrices beside it.

    `weight` and `bias` are the base's own parameters under their old names, so what a model calls its weights does not
    change; `lora_A.weight` and `lora_B.weight` come to them.
    """

    def __init__(self, base: "nn.Linear | LoraLinear", a: Tensor, config: LoraConfig) -> None:
        super().__init__()
        self.weight = base.weight
        self.bias = base.bias
        self.lora_A = _linear(a.to(base.weight))
        self.lora_B = _linear(base.weight.new_zeros(base.weight.shape[0], len(a)))
        self.scale = config.scale
        self.dropout = config.dropout
        # A model that is used and not trained must stay so, or its answers would have holes.
        self.train(base.training)

    def forward(self, x: Tensor) -> Tensor:
        y = F.linear(x, self.weight, self.bias)
        return y + self.lora_B(self.lora_A(F.dropout(x, self.dropout, self.training))) * self.scale

    def plain(self, weight: Tensor) -> nn.Linear:
        """A layer without the pair."""
        layer = _linear(weight)
        layer.bias = self.bias
        return layer.train(self.training)

    def merged_weight(self) -> Tensor:
        """W + scale B A, the same bits on every machine, so that a fingerprint can name a merged model.

        A matrix product adds in an order that depends on the processor and its threads; outer products one after the
        other do not.
        """
        delta = torch.zeros_like(self.weight)
        for column, row in zip(self.lora_B.weight.T, self.lora_A.weight, strict=True):
            delta += torch.outer(column, row)
        return self.weight + delta * self.scale


def add_lora(model: nn.Module, config: LoraConfig, seed: int) -> None:
    """Freeze the model and put fresh pairs beside its layers, in place; only they have gradients from now on.

    seed:  decides A, drawn as PEFT draws it (uniform, within 1 / √in); B is zero
    """
    assert not has_lora(model), "this model has an adapter already; merge or remove it first"
    generator = torch.Generator().manual_seed(seed)
    layers = list(_adaptable(model, config))
    model.requires_grad_(False)
    for name, base in layers:
        a = torch.empty(config.rank, base.weight.shape[1])
        nn.init.kaiming_uniform_(a, a=math.sqrt(5), generator=generator)
        _replace(model, name, LoraLinear(base, a, config))


def has_lora(model: nn.Module) -> bool:
    return any(isinstance(module, LoraLinear) for module in model.modules())


def lora_shapes(model: nn.Module, config: LoraConfig) -> dict[str, list[int]]:
    """The tensors of an adapter for `model`, by the names of `lora_weights`; the model need not have one."""
    shapes = {}
    for name, layer in _adaptable(model, config):
        rows, columns = layer.weight.shape
        shapes[f"{name}.lora_A.weight"] = [config.rank, columns]
        shapes[f"{name}.lora_B.weight"] = [rows, config.rank]
    return shapes


def lora_weights(model: nn.Module) -> dict[str, Tensor]:
    """What an adapter has learnt, by names such as layers.0.self_attn.q_proj.lora_A.weight; not copied."""
    weights = {}
    for name, layer in _adapted(model):
        weights[f"{name}.lora_A.weight"] = layer.lora_A.weight.detach()
        weights[f"{name}.lora_B.weight"] = layer.lora_B.weight.detach()
    return weights


@torch.no_grad()
def load_lora_weights(model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Copy `weights` into the pairs of `model`. Errors: CheckpointError for other names or shapes, nothing changed"""
    own = lora_weights(model)
    wrong = [name for name in own | dict(weights) if _shape(own, name) != _shape(weights, name)]
    if wrong:
        name = wrong[0]
        raise CheckpointError(
            f"adapter weights: {name} is {_shape(weights, name)}; expected {_shape(own, name)}, load them into a model "
            "with the same rank and layers"
        )
    for name, tensor in own.items():
        tensor.copy_(weights[name])


@torch.no_grad()
def merge_lora(model: nn.Module) -> None:
    """Add each pair to its layer, in place: a plain model again, all of it trainable, that answers as the adapted."""
    for name, layer in _adapted(model):
        _replace(model, name, layer.plain(layer.merged_weight()))
    model.requires_grad_(True)


def remove_lora(model: nn.Module) -> None:
    """Drop the pairs, in place: the base again, bit for bit, all of it trainable."""
    for name, layer in _adapted(model):
        _replace(model, name, layer.plain(layer.weight))
    model.requires_grad_(True)


def _adaptable(model: nn.Module, config: LoraConfig) -> Iterator[tuple[str, nn.Linear | LoraLinear]]:
    """The layers that `config` means, by name, whether they have a pair already or not."""
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear | LoraLinear) and name.rpartition(".")[2] in config.layers:
            yield name, module


def _adapted(model: nn.Module) -> list[tuple[str, LoraLinear]]:
    return [(name, module) for name, module in model.named_modules() if isinstance(module, LoraLinear)]


def _replace(model: nn.Module, name: str, layer: nn.Module) -> None:
    parent, _, last = name.rpartition(".")
    setattr(model.get_submodule(parent), last, layer)


def _linear(weight: Tensor) -> nn.Linear:
    """A layer without bias around given weights; the meta device saves drawing others first."""
    rows, columns = weight.shape
    layer = nn.Linear(columns, rows, bias=False, device="meta")
    layer.weight = weight if isinstance(weight, nn.Parameter) else nn.Parameter(weight)
    return layer


def _shape(weights: Mapping[str, Tensor], name: str) -> list[int] | None:
    return list(weights[name].shape) if name in weights else None
