"""A model or an adapter -> a .pth file that MiniMind's own scripts load, with the tokenizer they want beside it.

Upstream keeps weights in float16 and knows one shape: queries and keys normalised, no biases, the embedding as head.
`upstream.py` reads what this writes.
"""

from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from minimind.errors import CheckpointError
from minimind.interop.exported import Exported, require_plain, require_same_model, write_export
from minimind.interop.pth_file import PthFile
from minimind.interop.upstream import UpstreamShape, load_upstream
from minimind.model import ModelConfig, Transformer
from minimind.storage.adapters import PREFIX, read_adapter
from minimind.storage.adapters import WEIGHTS as ADAPTER_WEIGHTS
from minimind.storage.verify import open_tensors
from minimind.text.tokenizer import Tokenizer

__all__ = ["UpstreamType", "export_upstream", "export_upstream_lora"]

UpstreamType = Literal["float16", "float32"]
TYPES = {"float16": torch.float16, "float32": torch.float32}
# Rounding moves a number by half a step.
STEPS = {"float16": 2**-11, "float32": 0.0}


def export_upstream(
    out: Path, model: Transformer, tokenizer: Tokenizer, *, dtype: UpstreamType = "float16"
) -> Exported:
    """Write the folder `out` with NAME_WIDTH.pth and the tokenizer, read it back and compare.

    Errors:  CheckpointError for a shape that upstream's code does not have, and for weights beyond float16
    """
    config = model.config
    _require_upstream_shape(config)
    file, differences = f"{out.name}_{config.hidden_size}{'_moe' if config.num_experts else ''}.pth", []
    names = {name: f"model.{name}" for name in model.state_dict()}
    weights = {names[name]: _stored(name, tensor, dtype) for name, tensor in model.state_dict().items()}
    weights["lm_head.weight"] = weights["model.embed_tokens.weight"]

    def fill(place: Path) -> None:
        torch.save(weights, place / file)
        tokenizer.save(place)
        shape = UpstreamShape(
            rope_theta=config.rope_theta,
            rms_norm_eps=config.rms_norm_eps,
            max_position_embeddings=config.max_position_embeddings,
            num_experts_per_tok=config.num_experts_per_tok,
            norm_topk_prob=config.norm_topk_prob,
        )
        found = load_upstream(place / file, shape), Tokenizer.load(place)
        differences.append(require_same_model(out / file, (model, tokenizer), found, step=STEPS[dtype]))

    files = write_export(out, fill, need_bytes=sum(tensor.nbytes for tensor in weights.values()))
    usage = (
        f"MiniMind: put {file} into its out/ and the tokenizer's two files into its model/; then --weight {out.name} "
        f"--hidden_size {config.hidden_size} --num_hidden_layers {config.num_hidden_layers}"
        + (" --use_moe 1" if config.num_experts else ""),
        f"minimind: minimind import {out / file} --tokenizer {out} --out models/{out.name}",
    )
    return Exported(files, differences[0], usage)


def export_upstream_lora(out: Path, adapter: Path, *, dtype: UpstreamType = "float16") -> Exported:
    """Write the folder `out` with NAME_WIDTH.pth, the tensors of an adapter's folder.

    Upstream counts an adapter once; one that counts otherwise has that in its B afterwards.
    """
    scale = read_adapter(adapter).config.scale
    weights: dict[str, Tensor] = {}
    with open_tensors(adapter / ADAPTER_WEIGHTS) as tensors:
        for name in tensors.keys():  # noqa: SIM118
            layer, _, part = name.removeprefix(PREFIX).rpartition(".lora_")
            tensor = tensors.get_tensor(name) * (scale if part.startswith("B") else 1.0)
            weights[f"model.{layer}.lora.{part}"] = _stored(name, tensor, dtype)
    widths = {name: tensor.shape[name.endswith("A.weight")] for name, tensor in weights.items()}
    for name in widths:
        if widths[name] != widths[name.replace("lora.A", "lora.B")]:
            raise CheckpointError(
                f"{adapter}: adapts {name.split('.lora')[0]}, which is not square; MiniMind's own code has them for "
                "square layers only and would leave this one out, export it with --format peft instead"
            )
    file = f"{out.name}_{max(widths.values())}.pth"

    def fill(place: Path) -> None:
        torch.save(weights, place / file)
        found = PthFile.open(place / file)
        if found.tensors.keys() != weights.keys() or not all(
            torch.equal(found.read(name), tensor.float()) for name, tensor in weights.items()
        ):
            raise CheckpointError(f"{out}: not written, the adapter came back different")

    files = write_export(out, fill, need_bytes=sum(tensor.nbytes for tensor in weights.values()))
    return Exported(files, 0.0, (f"MiniMind: put {file} into its out/; then --lora_weight {out.name}",))


def _require_upstream_shape(config: ModelConfig) -> None:
    require_plain(config, "a .pth of MiniMind")
    refused = {
        "qk_norm off": not config.qk_norm,
        "attention_bias on": config.attention_bias,
        "output_bias on": config.output_bias,
        "tie_word_embeddings off": not config.tie_word_embeddings,
        "rope_scaling": (config.rope_scaling or {}).get("rope_type", "default") != "default",
    }
    for what, is_there in refused.items():
        if is_there:
            raise CheckpointError(f"MiniMind's own code has no model with {what}; export it with --format hf instead")


def _stored(name: str, tensor: Tensor, dtype: UpstreamType) -> Tensor:
    rounded = tensor.detach().to("cpu", TYPES[dtype]).contiguous()
    if not torch.isfinite(rounded).all():
        raise CheckpointError(f"{name} has weights beyond 65504, which float16 cannot hold; export it as f32")
    return rounded
