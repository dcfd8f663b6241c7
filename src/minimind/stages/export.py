"""`minimind export MODEL --format FORMAT --out FOLDER`: a model as another program reads it, checked as written."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from minimind.config import REQUIRED, Config, option
from minimind.errors import ConfigError
from minimind.terminal.figures import size
from minimind.terminal.notes import say

if TYPE_CHECKING:
    from minimind.interop.exported import Exported

__all__ = ["ExportConfig", "run"]

# What each format calls a type; a type that is not there it does not have.
TYPES: dict[str, dict[str, Any]] = {
    "hf": {"f32": "float32", "f16": "float16", "bf16": "bfloat16"},
    "gguf": {name: name.upper() for name in ("f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0")},
    "onnx": {"f32": "float32"},
    "minimind": {"f32": "float32", "f16": "float16"},
    "minimind-lora": {"f32": "float32", "f16": "float16"},
    "peft": {"f32": "float32"},
}


class ExportConfig(Config):
    """Write a model as another program reads it, read it back, compare, and only then give the folder its name.

    hf: transformers, vLLM. gguf: llama.cpp, ollama. onnx: ONNX Runtime, transformers.js in a browser. minimind:
    upstream's .pth. peft and minimind-lora: an adapter by itself; the other formats merge it into its base.
    """

    positional: ClassVar[str] = "model"

    model: Path = option(REQUIRED, "A model folder, a run (its latest checkpoint), or an adapter.")
    format: Literal["hf", "gguf", "onnx", "minimind", "peft", "minimind-lora"] = option("hf", "For which program.")
    out: Path = option(REQUIRED, "The folder to write; it must not exist yet.")
    dtype: Literal["f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0"] = option(
        "f32", "What weights are rounded to: bf16 in hf and gguf, those with a q in gguf only, f32 is exact."
    )
    base: str | None = option(None, "peft: where others find the base model, such as a name on the hub.")


def run(config: ExportConfig) -> None:
    """Write `config.out`, whole or not at all, and say what it is and how to use it."""
    if config.out.exists():
        raise ConfigError(f"{config.out} exists already; choose another --out")
    if config.dtype not in TYPES[config.format]:
        known = ", ".join(TYPES[config.format])
        raise ConfigError(f"--format {config.format} has no --dtype {config.dtype}; expected one of {known}")
    if config.base and config.format != "peft":
        raise ConfigError("--base is for --format peft; leave it out")
    is_adapter = config.format in ("peft", "minimind-lora")
    written = _export_adapter(config) if is_adapter else _export_model(config)
    say(f"{config.out}: written for {config.format} in {config.dtype}, read back and compared")
    say(f"  weights {_agreement(config, written.difference)}")
    width = max(len(file.name) for file in written.files)
    for file in written.files:
        say(f"  {file.name:{width}}  {size(file.num_bytes):>9}  sha256 {file.sha256}")
    for line in written.usage:
        say(f"  {line}")


def _export_model(config: ExportConfig) -> "Exported":
    from minimind.storage.checkpoint import find_checkpoint, load_model

    model, tokenizer = load_model(config.model)
    dtype = TYPES[config.format][config.dtype]
    if config.format == "gguf":
        from minimind.interop.gguf_writer import export_gguf

        return export_gguf(config.out, model, tokenizer, kind=dtype)
    if config.format == "minimind":
        from minimind.interop.upstream_export import export_upstream

        return export_upstream(config.out, model, tokenizer, dtype=dtype)
    from minimind.interop.model_card import find_run, model_card

    recorded = find_run(config.model) or find_run(find_checkpoint(config.model))
    if config.format == "onnx":
        from minimind.interop.onnx_export import export_onnx

        card = model_card(config.out.name, model, tokenizer, recorded, dtype, library="transformers.js")
        return export_onnx(config.out, model, tokenizer, card=card)
    from minimind.interop.hf_export import export_hf

    card = model_card(config.out.name, model, tokenizer, recorded, dtype)
    return export_hf(config.out, model, tokenizer, card=card, dtype=dtype)


def _export_adapter(config: ExportConfig) -> "Exported":
    """The pairs alone, without their base."""
    from minimind.storage.adapters import is_adapter
    from minimind.storage.checkpoint import find_checkpoint

    folder = find_checkpoint(config.model)
    if not is_adapter(folder):
        raise ConfigError(f"{folder}: holds a model and no adapter; expected a LoRA run, or choose another --format")
    if config.format == "peft":
        from minimind.interop.peft_export import export_peft

        return export_peft(config.out, folder, base=config.base)
    from minimind.interop.upstream_export import export_upstream_lora

    return export_upstream_lora(config.out, folder, dtype=TYPES[config.format][config.dtype])


def _agreement(config: ExportConfig, difference: float) -> str:
    if config.format == "onnx":
        return f"not rounded: logits differ by {difference:.1e} of the largest, and the same text"
    if config.dtype == "f32":
        return "equal to the bit, and the same text" if config.format in ("hf", "gguf", "minimind") else "equal"
    return f"rounded to {config.dtype}: logits differ by {difference:.2%}"
