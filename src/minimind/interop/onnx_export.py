"""A model -> a folder with model.onnx for ONNX Runtime, on any device and in the browser.

`onnx_graph.py` writes the graph. What it says is then asked of onnxruntime and compared with what the model says, for
whole prompts, for prompts in pieces with what was kept of the earlier ones, for rows with padding, at the end of the
context, and along a greedy text. Only a folder that passed gets its name.
"""

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from minimind.errors import CheckpointError, ConfigError, install
from minimind.interop.exported import Exported, require_plain, write_checkpoint_files, write_export
from minimind.interop.onnx_graph import build_onnx
from minimind.model import Attend, Transformer, attend_to_earlier
from minimind.storage.tensor_files import write_json
from minimind.storage.verify import read_json
from minimind.text.chat_template import chat_template
from minimind.text.tokenizer import Tokenizer

__all__ = ["OnnxModel", "export_onnx", "require_same_logits"]

# Where optimum and transformers.js look, and the latter for weights that do not fit into the file itself.
FILE = "onnx/model.onnx"
WEIGHTS_FILE = "model.onnx_data"
# A protobuf message has to be below 2 GiB.
LARGEST_FILE = 2_000_000_000
# Of the largest logit. The same numbers summed in another order differ by about 1e-6, another model by 1.
TOLERANCE = 1e-4
PROMPT_TOKENS = 24
GREEDY_TOKENS = 32


def export_onnx(
    out: Path, model: Transformer, tokenizer: Tokenizer, *, card: str, largest_file: int = LARGEST_FILE
) -> Exported:
    """Write the folder `out`, run it in onnxruntime and compare.

    card:          the text of README.md
    largest_file:  bytes of weights above which they get a file of their own
    Errors:        ConfigError without the packages; CheckpointError for a graph that says something else
    """
    require_plain(model.config, "an ONNX graph")
    try:
        onnx, _ = (import_module(name) for name in ("onnx", "onnxruntime"))
    except ImportError:
        raise ConfigError(f"writing ONNX needs onnx and onnxruntime: {install('onnx')}") from None

    differences = []
    num_bytes = 4 * sum(parameter.numel() for parameter in model.parameters())
    is_apart = num_bytes > largest_file

    def fill(place: Path) -> None:
        _write_small_files(place, model, tokenizer, card)
        if is_apart:
            _change(place / "config.json", {"transformers.js_config": {"use_external_data_format": True}})
        (place / FILE).parent.mkdir()
        onnx.save_model(build_onnx(model), place / FILE, save_as_external_data=is_apart, location=WEIGHTS_FILE)
        if is_apart:
            # onnx makes this one readable by its owner alone.
            shutil.copymode(place / FILE, (place / FILE).with_name(WEIGHTS_FILE))
        differences.append(require_same_logits(out, OnnxModel(place / FILE), model, tokenizer))

    files = write_export(out, fill, need_bytes=num_bytes)
    usage = (
        f'onnxruntime: onnxruntime.InferenceSession("{out / FILE}")',
        f'optimum: ORTModelForCausalLM.from_pretrained("{out}")',
        f'transformers.js: pipeline("text-generation", "{out.name}", {{dtype: "fp32"}})',
    )
    return Exported(files, differences[0], usage)


class OnnxModel:
    """What a file says, as onnxruntime reads it. Errors: CheckpointError when it refuses the file"""

    def __init__(self, path: Path) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        # Errors only.
        options.log_severity_level = 3
        with _refusal():
            self._session = onnxruntime.InferenceSession(path, options, ["CPUExecutionProvider"])
        self._outputs = [output.name for output in self._session.get_outputs()]
        self._shapes = {given.name: given.shape for given in self._session.get_inputs()}

    def __call__(
        self, tokens: Tensor, mask: Tensor, positions: Tensor, past: Mapping[str, Any] | None = None
    ) -> tuple[Tensor, dict[str, Any]]:
        """Logits [B, T, V] of new tokens, and the keys and values of all.

        tokens, positions:  [B, T]
        mask:               [B, S], 0 for padding, of earlier tokens and new ones
        past:               what came back with the earlier tokens
        """
        if past is None:
            sizes = {name: shape for name, shape in self._shapes.items() if name.startswith("past_key_values.")}
            past = {name: np.zeros((len(tokens), shape[1], 0, shape[3]), np.float32) for name, shape in sizes.items()}
        inputs = {
            "input_ids": tokens.numpy(),
            "attention_mask": mask.numpy(),
            "position_ids": positions.numpy(),
            **past,
        }
        with _refusal():
            found = dict(zip(self._outputs, self._session.run(self._outputs, inputs), strict=True))
        kept = {name: found[name.replace("past_key_values", "present")] for name in past}
        return torch.from_numpy(found["logits"]), kept


@torch.no_grad()
def require_same_logits(where: Path, found: OnnxModel, model: Transformer, tokenizer: Tokenizer) -> float:
    """The worst difference from the model's logits, as a part of the largest. Errors: CheckpointError, what differs"""
    worst = 0.0
    for what, difference in _differences(found, model, tokenizer):
        # Also false for what is not a number.
        if not difference <= TOLERANCE:
            raise CheckpointError(
                f"{where}: not written, {what} came back different: logits by {difference:.2g} of the largest, "
                f"expected at most {TOLERANCE:g}"
            )
        worst = max(worst, difference)
    return worst


def _write_small_files(place: Path, model: Transformer, tokenizer: Tokenizer, card: str) -> None:
    """Everything but the graph."""
    write_checkpoint_files(place, model, tokenizer)
    for path in place.glob("model*.safetensors*"):
        path.unlink()
    # transformers.js does not look for a template in a file of its own, and is not asked to know transformers' tag.
    if tokenizer.template is None:
        template = chat_template(tokenizer.control_names)
        (place / "chat_template.jinja").write_text(template, encoding="utf-8")
    else:
        template = tokenizer.template.text_for(None)
    _change(place / "tokenizer_config.json", {"chat_template": template})
    (place / "README.md").write_text(card, encoding="utf-8")


def _change(path: Path, values: dict[str, Any]) -> None:
    write_json(path, read_json(path) | values)


@contextmanager
def _refusal() -> Iterator[None]:
    """onnxruntime's errors have no base class but `Exception`."""
    try:
        yield
    except Exception as error:
        raise CheckpointError(f"not written, onnxruntime refuses the graph: {str(error).splitlines()[0]}") from error


def _differences(found: OnnxModel, model: Transformer, tokenizer: Tokenizer) -> Iterator[tuple[str, float]]:
    context, generator = model.config.max_position_embeddings, torch.Generator().manual_seed(0)
    longest = min(PROMPT_TOKENS, context)
    lengths = [longest, max(longest // 2, 1), 1]
    rows = [torch.randint(model.config.vocab_size, (length,), generator=generator) for length in lengths]
    ours = torch.cat([model(row[None])[0] for row in rows])
    yield "a batch of prompts", _apart(_batch(found, rows, [longest]), ours)
    cuts = sorted({max(longest // 2, 1), max(longest - 1, 1), longest})
    yield "a batch of prompts in pieces", _apart(_batch(found, rows, cuts), ours)

    tokens, positions = rows[0][None], torch.arange(context - longest, context)[None]
    ours = model.logits(model.hidden_states(tokens, cache=_Later(positions[:, 0])).states)
    yield "a prompt at the end of the context", _apart(found(tokens, torch.ones_like(tokens), positions)[0], ours)
    yield "the greedy text", _greedy_loss(found, model, tokenizer)


def _apart(theirs: Tensor, ours: Tensor) -> float:
    return float((theirs - ours).abs().max() / ours.abs().max().clamp_min(1e-30))


def _batch(found: OnnxModel, rows: list[Tensor], cuts: list[int]) -> Tensor:
    """The logits of all rows, one after the other. They are given padded on the left, in pieces that end at `cuts`."""
    tokens, mask = torch.zeros(2, len(rows), cuts[-1], dtype=torch.int64)
    for index, row in enumerate(rows):
        tokens[index, -len(row) :], mask[index, -len(row) :] = row, 1
    positions = (mask.cumsum(-1) - 1).clamp_min(0)
    pieces, past = [], None
    for start, end in pairwise([0, *cuts]):
        logits, past = found(tokens[:, start:end], mask[:, :end], positions[:, start:end], past)
        pieces.append(logits)
    return torch.cat(pieces, dim=1)[mask.bool()]


def _greedy_loss(found: OnnxModel, model: Transformer, tokenizer: Tokenizer) -> float:
    """How much worse the model scores the worst of the tokens chosen than its own best there; 0 is the same text.

    Two best tokens may be as good as equal, and either is right; so texts are not compared.
    """
    context = model.config.max_position_embeddings
    prompt = tokenizer.begin(tokenizer.encode("The sun"))[:context]
    ids, new, past = list(prompt), prompt, None
    for _ in range(min(GREEDY_TOKENS, context - len(prompt) + 1)):
        positions = torch.arange(len(ids) - len(new), len(ids))[None]
        logits, past = found(torch.tensor([new]), torch.ones(1, len(ids), dtype=torch.int64), positions, past)
        new = [int(logits[0, -1].argmax())]
        ids += new
    scores = model(torch.tensor([ids[:-1]]))[0, len(prompt) - 1 :]
    chosen = scores.gather(-1, torch.tensor(ids[len(prompt) :])[:, None])
    return float((scores.amax(-1, keepdim=True) - chosen).max() / scores.abs().max().clamp_min(1e-30))


@dataclass
class _Later:
    """A cache of nothing: rows that begin at a later position, and do not see what was before."""

    lengths: Tensor

    def layer(self, index: int, positions: Tensor) -> Attend:
        return attend_to_earlier
