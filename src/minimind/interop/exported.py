"""A folder that other programs read: there whole and proved, or not there at all.

Each format fills a temporary folder, reads it back as a stranger would, and compares; only then one rename gives it its
name (`storage/folder.py`). A format that rounds weights may think a little differently, and the export says how much.
Next: `hf_export.py`, `gguf_writer.py`, `onnx_export.py`, `upstream_export.py`.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from minimind.errors import CheckpointError
from minimind.generation.generate import generate
from minimind.model import ModelConfig, Transformer, rotary_frequencies
from minimind.storage.checkpoint import save_checkpoint
from minimind.storage.config_json import EXPERT_FIELDS
from minimind.storage.folder import MANIFEST, write_folder
from minimind.storage.verify import read_json
from minimind.text.tokenizer import Tokenizer
from minimind.variants import VariantConfig

__all__ = ["Exported", "ExportedFile", "require_plain", "require_same_model", "write_checkpoint_files", "write_export"]

# Room for tokenizer, template and JSON, beside the weights.
SMALL_FILES_BYTES = 32 * 2**20
# Half-precision numbers are spaced evenly near zero, and so are multiples of a scale that is one.
SMALLEST_STEP = 127 * 2**-25


@dataclass(frozen=True)
class ExportedFile:
    name: str
    num_bytes: int
    sha256: str


@dataclass(frozen=True)
class Exported:
    """What was written.

    files:       the largest first
    difference:  of the logits from those of the model, relative; 0 when no weight was rounded
    usage:       lines to copy, each with the program it is for
    """

    files: tuple[ExportedFile, ...]
    difference: float
    usage: tuple[str, ...]


def write_export(out: Path, fill: Callable[[Path], None], *, need_bytes: int) -> tuple[ExportedFile, ...]:
    """Let `fill` write and check a folder, then call it `out`. Errors: CheckpointError, with nothing left behind

    There is no manifest in it, unlike in a checkpoint: people edit what they publish, a model card above all.
    """
    if out.exists():
        raise CheckpointError(f"{out} exists already; choose another place or remove it first")
    write_folder(out, fill, need_bytes=need_bytes + SMALL_FILES_BYTES)
    entries = read_json(out / MANIFEST)["files"]
    (out / MANIFEST).unlink()
    files = (ExportedFile(name, entry["bytes"], entry["sha256"]) for name, entry in entries.items())
    return tuple(sorted(files, key=lambda file: (-file.num_bytes, file.name)))


def write_checkpoint_files(place: Path, model: Transformer, tokenizer: Tokenizer, **options: Any) -> None:
    """The files of `save_checkpoint` in a folder that is there, less the manifest. Errors: CheckpointError"""
    whole = place / "checkpoint"
    save_checkpoint(whole, model, tokenizer, **options)
    (whole / MANIFEST).unlink()
    for path in sorted(whole.iterdir()):
        path.rename(place / path.name)
    whole.rmdir()


@torch.no_grad()
def require_same_model(
    where: Path | str,
    expected: tuple[Transformer, Tokenizer],
    found: tuple[Transformer, Tokenizer],
    *,
    step: float,
) -> float:
    """The relative difference of the logits, once shape, ids and weights are the same; it is reported, not judged.

    step:    by how much a weight may have been rounded, as a part of the largest in its row; 0 allows no bit to differ,
             and then a greedy continuation has to be the same text
    Errors:  CheckpointError naming what came back different
    """
    (model, tokenizer), (other, other_tokenizer) = expected, found
    if _meaning(other.config) != _meaning(model.config):
        raise _differs(where, "the shape", f"{other.config} and not {model.config}")
    if other_tokenizer.fingerprint != tokenizer.fingerprint:
        raise _differs(where, "the tokenizer", f"{other_tokenizer.fingerprint} and not {tokenizer.fingerprint}")
    others = other.state_dict()
    for name, weight in model.state_dict().items():
        bound = step * weight.abs().amax(-1, keepdim=True) + (SMALLEST_STEP if step else 0)
        if not ((others[name] - weight).abs() <= bound).all():
            raise _differs(where, name, f"by up to {float((others[name] - weight).abs().max()):.2g}")
    if not step and _greedy(other, tokenizer) != _greedy(model, tokenizer):
        raise _differs(where, "the greedy text", f"{_greedy(other, tokenizer)!r}")
    ids = torch.randint(model.config.vocab_size, (2, 24), generator=torch.Generator().manual_seed(0))
    ids = ids[:, : model.config.max_position_embeddings]
    ours, theirs = model(ids), other(ids)
    return float((theirs - ours).norm() / ours.norm().clamp_min(1e-30))


def require_plain(config: ModelConfig, what: str) -> None:
    """Errors: CheckpointError for a family that `what` is not written for"""
    if isinstance(config, VariantConfig):
        raise CheckpointError(
            f"{what} is not written for a {config.model_type}; export it with --format hf, which that family's own "
            "tools read"
        )


def _meaning(config: ModelConfig) -> dict[str, Any]:
    """The fields that describe a part that is there; formats leave the others out."""
    frequencies, scale = rotary_frequencies(config)
    values = asdict(config) | {"rope_scaling": (frequencies.tolist(), round(scale, 5))}
    absent = ("intermediate_size",) if config.num_experts else EXPERT_FIELDS
    return {name: value for name, value in values.items() if name not in absent}


def _greedy(model: Transformer, tokenizer: Tokenizer) -> str:
    prompt = "The sun"
    room = model.config.max_position_embeddings - len(tokenizer.begin(tokenizer.encode(prompt)))
    return generate(model, tokenizer, prompt, temperature=0, max_tokens=max(min(16, room), 1))


def _differs(where: Path | str, what: str, how: str) -> CheckpointError:
    return CheckpointError(f"{where}: not written, {what} came back different: {how}")
