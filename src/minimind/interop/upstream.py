"""MiniMind's own .pth files -> a model, or an adapter for one.

The names are those of Qwen3 and Qwen3-MoE. A file has tensors and no settings: widths and counts follow from shapes,
and what follows from none is taken for minimind-3's unless it is given (`UpstreamShape`). The tokenizer lies elsewhere.
At one expert a token `norm_topk_prob` makes the chosen expert count fully; that is what the weights were trained with,
so it is what they are loaded with. `pth_file.py` reads the file, `upstream_export.py` writes one.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated

import torch

from minimind.errors import CheckpointError
from minimind.interop.pth_file import PthFile
from minimind.lora import MAX_RANK, TARGETS, LoraConfig, add_lora, load_lora_weights, lora_shapes
from minimind.model import ModelConfig, Transformer
from minimind.storage.verify import first_of, require_same_shapes

__all__ = ["UpstreamShape", "load_upstream", "load_upstream_lora"]

# What torch.compile and DistributedDataParallel put before a name.
PREFIXES = ("_orig_mod.", "module.")
LORA = re.compile(r"(.+)\.lora\.([AB])\.weight")
MOST_BLOCKS = 512


@dataclass(frozen=True)
class UpstreamShape:
    """What tensors do not tell; the defaults are minimind-3's."""

    num_attention_heads: Annotated[int | None, "Query heads; needed for old files without q_norm only."] = None
    rope_theta: Annotated[float, "Base of the rotary frequencies."] = 1e6
    rms_norm_eps: Annotated[float, "What keeps a norm from dividing by zero; 1e-5 in older files."] = 1e-6
    max_position_embeddings: Annotated[int, "Longest context."] = 32768
    num_experts_per_tok: Annotated[int, "Experts that a token takes, in a mixture."] = 1
    norm_topk_prob: Annotated[bool, "The chosen experts' weights sum to 1."] = True


def load_upstream(path: Path | str, shape: UpstreamShape | None = None) -> Transformer:
    """The model of a file, in evaluation mode and float32. Errors: CheckpointError naming the file and the tensor"""
    file = PthFile.open(path)
    names = _plain_names(file)
    if any(LORA.fullmatch(name) for name in names):
        raise CheckpointError(f"{file.path}: holds an adapter (LoRA); say with --base for which model folder it is")
    shapes = {name: file.tensors[stored].shape for name, stored in names.items()}
    config = _config(file.path, shapes, shape or UpstreamShape())
    _require_shapes(file.path, shapes, config)
    weights = {name.removeprefix("model."): file.read(stored) for name, stored in names.items()}
    head = weights.get("lm_head.weight")
    if head is None or torch.equal(head, weights["embed_tokens.weight"]):
        # Tied weights are saved under both names.
        weights.pop("lm_head.weight", None)
        config = replace(config, tie_word_embeddings=True)
    # The meta device costs no memory and no initialisation that the weights would overwrite.
    with torch.device("meta"):
        model = Transformer(config)
    model.load_state_dict(weights, assign=True)
    return model.eval()


def load_upstream_lora(path: Path | str, model: Transformer) -> LoraConfig:
    """Give `model` the adapter of a file, in place; it counts once, with scale 1.

    Errors:  CheckpointError naming the file and the tensor, with `model` as it was
    """
    file = PthFile.open(path)
    found: dict[str, str] = {}
    for name, stored in _plain_names(file).items():
        match = LORA.fullmatch(name)
        if match is None:
            raise CheckpointError(f"{file.path}: {name!r:.80} beside an adapter's tensors; expected NAME.lora.A.weight")
        found[f"{match[1].removeprefix('model.')}.lora_{match[2]}.weight"] = stored
    ranks = {file.tensors[stored].shape[0] for name, stored in found.items() if name.endswith("lora_A.weight")}
    layers = {name.split(".lora_")[0].rpartition(".")[2] for name in found}
    if len(ranks) != 1 or not 1 <= max(ranks) <= MAX_RANK or not layers <= {*TARGETS}:
        raise CheckpointError(
            f"{file.path}: an adapter of ranks {sorted(ranks)} for {first_of(sorted(layers))}; expected one rank, "
            f"from 1 to {MAX_RANK}, for some of {', '.join(TARGETS)}"
        )
    config = LoraConfig(rank=ranks.pop(), targets=tuple(name for name in TARGETS if name in layers))
    expected = lora_shapes(model, config)
    shapes = {name: file.tensors[stored].shape for name, stored in found.items()}
    require_same_shapes(file.path, shapes, expected, "an adapter for a model of another shape")
    weights = {name: file.read(stored) for name, stored in found.items()}
    add_lora(model, config, seed=0)
    load_lora_weights(model, weights)
    return config


def _plain_names(file: PthFile) -> dict[str, str]:
    """Name -> the file's name for each tensor, without what wrappers put before it."""
    names: dict[str, str] = {}
    for stored in file.tensors:
        name = stored
        while name.startswith(PREFIXES):
            name = name.partition(".")[2]
        if name in names:
            raise CheckpointError(f"{file.path}: {stored!r} and {names[name]!r} are one tensor; expected it once")
        names[name] = stored
    return names


def _config(path: Path, shapes: Mapping[str, tuple[int, ...]], given: UpstreamShape) -> ModelConfig:
    """The shape of a model from those of its tensors, which are compared with it afterwards."""
    size = partial(_size, path, shapes)
    attention = "model.layers.0.self_attn."
    query_rows, head_dim = size(f"{attention}q_proj.weight", 0), _head_dim(path, shapes, given)
    blocks = {name.split(".")[2] for name in shapes if name.startswith("model.layers.")}
    experts = {name.split(".")[5] for name in shapes if name.startswith("model.layers.0.mlp.experts.")}
    inner = size(f"model.layers.0.mlp.{'experts.0.' if experts else ''}gate_proj.weight", 0)
    if len(blocks) > MOST_BLOCKS:
        raise CheckpointError(f"{path}: has {len(blocks)} blocks; expected at most {MOST_BLOCKS}")
    mixture = {
        "num_experts": len(experts),
        "num_experts_per_tok": given.num_experts_per_tok,
        "moe_intermediate_size": inner,
        "norm_topk_prob": given.norm_topk_prob,
    }
    try:
        return ModelConfig(
            vocab_size=size("model.embed_tokens.weight", 0),
            hidden_size=size("model.embed_tokens.weight", 1),
            num_hidden_layers=len(blocks),
            num_attention_heads=query_rows // head_dim,
            num_key_value_heads=size(f"{attention}k_proj.weight", 0) // head_dim,
            head_dim=head_dim,
            intermediate_size=inner,
            max_position_embeddings=given.max_position_embeddings,
            rope_theta=given.rope_theta,
            rms_norm_eps=given.rms_norm_eps,
            tie_word_embeddings="lm_head.weight" not in shapes,
            qk_norm=f"{attention}q_norm.weight" in shapes,
            attention_bias=f"{attention}q_proj.bias" in shapes,
            **(mixture if experts else {}),
        )
    except (ValueError, ZeroDivisionError) as error:
        raise CheckpointError(f"{path}: {error}") from None


def _size(path: Path, shapes: Mapping[str, tuple[int, ...]], name: str, dimension: int) -> int:
    found = shapes.get(name, ())
    if len(found) <= dimension:
        raise CheckpointError(f"{path}: {name} is {[*found] or 'missing'}; expected a model of MiniMind's")
    return found[dimension]


def _head_dim(path: Path, shapes: Mapping[str, tuple[int, ...]], given: UpstreamShape) -> int:
    attention = "model.layers.0.self_attn."
    query_rows = _size(path, shapes, f"{attention}q_proj.weight", 0)
    if f"{attention}q_norm.weight" in shapes:
        head_dim = _size(path, shapes, f"{attention}q_norm.weight", 0)
    elif given.num_attention_heads and query_rows % given.num_attention_heads == 0:
        head_dim = query_rows // given.num_attention_heads
    else:
        raise CheckpointError(
            f"{path}: has no q_norm, so the {query_rows} rows of q_proj do not tell how many heads they are; "
            "give --shape.num_attention_heads, a divisor of that"
        )
    if not head_dim or query_rows % head_dim:
        raise CheckpointError(f"{path}: q_proj has {query_rows} rows and q_norm {head_dim}; expected whole heads")
    return head_dim


def _require_shapes(path: Path, shapes: Mapping[str, tuple[int, ...]], config: ModelConfig) -> None:
    """Refuse names and shapes that are not those of the model."""
    # One block stands for all, so that a file cannot have thousands built before its shapes were compared.
    with torch.device("meta"):
        one = Transformer(replace(config, num_hidden_layers=1))
    expected: dict[str, tuple[int, ...]] = {}
    for name, tensor in one.state_dict().items():
        plain = name if name.startswith("lm_head.") else f"model.{name}"
        for index in range(config.num_hidden_layers) if name.startswith("layers.") else (0,):
            expected[plain.replace("layers.0.", f"layers.{index}.")] = tuple(tensor.shape)
    require_same_shapes(path, shapes, expected, "tensors do not fit each other")
