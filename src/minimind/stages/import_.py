"""`minimind import FILE`: a model in another program's format -> a model folder, which every verb reads.

The module bears the verb's name as all stages do, though Python has a keyword of that name: `load_stage` finds it.
"""

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from minimind.config import REQUIRED, Config, option
from minimind.errors import ConfigError
from minimind.interop.upstream import UpstreamShape
from minimind.terminal.figures import millions
from minimind.terminal.notes import say
from minimind.text.chat_template import THINK_MARKS, TOOL_MARKS

if TYPE_CHECKING:
    from minimind.model import Transformer
    from minimind.text.tokenizer import Tokenizer

__all__ = ["ImportConfig", "run"]


class ImportConfig(Config):
    """Read a GGUF file (llama, qwen2, qwen3 or qwen3moe; from F32 down to Q4), or a .pth file of MiniMind's (a model or
    a LoRA adapter), and write it as a folder in float32.

    A Hugging Face folder needs no import: --model and the other verbs take it as it is.
    """

    positional: ClassVar[str] = "file"

    file: Path = option(REQUIRED, "The GGUF or .pth file.")
    out: Path = option(REQUIRED, "The folder to write; it must not exist yet.")
    tokenizer: Path | None = option(None, "For a model's .pth: its tokenizer.json, or the folder with it.")
    base: Path | None = option(None, "For an adapter's .pth: the model folder that it is for.")
    shape: UpstreamShape = option(UpstreamShape(), "For a model's .pth: what its tensors do not tell.")


def run(config: ImportConfig) -> None:
    """Write `config.out`, whole or not at all, and say what was read."""
    if config.out.exists():
        raise ConfigError(f"{config.out} exists already; choose another --out")
    if config.file.is_dir():
        raise ConfigError(f"{config.file}: a folder; expected a GGUF file, a Hugging Face folder needs no import")
    is_pth = config.file.suffix in (".pth", ".pt", ".bin")
    for name in ("tokenizer", "base"):
        if getattr(config, name) and not is_pth:
            raise ConfigError(f"--{name} is for a .pth file; leave it out, a GGUF file has all that is needed")
    if config.base:
        _import_adapter(config, config.base)
    elif is_pth:
        _import_pth(config)
    else:
        _import_gguf(config)


def _import_gguf(config: ImportConfig) -> None:
    from minimind.interop.gguf_weights import load_gguf

    found = load_gguf(config.file)
    total = sum(parameter.numel() for parameter in found.model.parameters())
    kinds = ", ".join(f"{number / total:.1%} {kind}" for kind, number in found.numbers.items())
    _save(config, found.model, found.tokenizer, f"{found.architecture}, {millions(total)} parameters ({kinds})")


def _import_pth(config: ImportConfig) -> None:
    from minimind.interop.upstream import load_upstream
    from minimind.text.tokenizer import Tokenizer

    if config.tokenizer is None:
        raise ConfigError("a .pth file has no tokenizer; give --tokenizer, or --base for an adapter")
    tokenizer = Tokenizer.load(config.tokenizer)
    model = load_upstream(config.file, config.shape)
    if tokenizer.vocab_size > model.config.vocab_size:
        raise ConfigError(
            f"{config.tokenizer} has {tokenizer.vocab_size:,} tokens and {config.file} {model.config.vocab_size:,} "
            "rows; expected at most as many tokens as rows, take the tokenizer of this model"
        )
    total = sum(parameter.numel() for parameter in model.parameters())
    kind = "mixture of experts" if model.config.num_experts else "dense"
    _save(config, model, tokenizer, f"MiniMind, {kind}, {millions(total)} parameters")


def _save(config: ImportConfig, model: "Transformer", tokenizer: "Tokenizer", found: str) -> None:
    from minimind.storage.checkpoint import save_checkpoint

    save_checkpoint(config.out, model, tokenizer)
    say(f"{config.file}: {found}")
    say(f"tokenizer: {tokenizer.vocab_size:,} tokens, split pattern {tokenizer.pattern}{_lacks(tokenizer)}")
    say(f"{config.out}: written in float32; talk with it: minimind chat {config.out}")


def _import_adapter(config: ImportConfig, base: Path) -> None:
    """An adapter is written as a folder that names its base and knows it again."""
    from minimind.interop.upstream import load_upstream_lora
    from minimind.storage.adapters import fingerprint, save_adapter
    from minimind.storage.checkpoint import load_model

    model, tokenizer = load_model(base)
    base_fingerprint = fingerprint(model)
    lora = load_upstream_lora(config.file, model)
    save_adapter(
        config.out,
        model,
        base=str(base),
        base_fingerprint=base_fingerprint,
        config=lora,
        tokenizer_fingerprint=tokenizer.fingerprint,
    )
    say(f"{config.file}: an adapter of rank {lora.rank} for {', '.join(lora.layers)}")
    say(f"{config.out}: written; talk with it: minimind chat {config.out}")


def _lacks(tokenizer: "Tokenizer") -> str:
    """What conversations with this vocabulary must do without."""
    groups = (("think block", THINK_MARKS), ("tools", TOOL_MARKS))
    missing = [what for what, names in groups if not tokenizer.control_names.issuperset(names)]
    return f", no tokens for {' or '.join(missing)}" if missing else ""
