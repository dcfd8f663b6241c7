"""What a run trains, and what its checkpoints keep of it: a model or an adapter, and a critic's head beside it."""

import copy
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from minimind.errors import CheckpointError, why
from minimind.lora import LoraConfig, add_lora, merge_lora
from minimind.model import Transformer
from minimind.storage.adapters import fingerprint, load_adapter, save_adapter
from minimind.storage.checkpoint import find_checkpoint, save_checkpoint
from minimind.storage.verify import model_files
from minimind.text.tokenizer import Tokenizer
from minimind.training.state import STATE

__all__ = ["Base", "TrainedModel"]

HEAD = f"{STATE}/value_head.safetensors"


@dataclass(frozen=True)
class Base:
    """What an adapter is an adapter of: where it lies, and the fingerprint of its weights."""

    folder: Path
    fingerprint: str
    lora: LoraConfig


@dataclass(frozen=True, kw_only=True)
class TrainedModel:
    """A language model and its tokenizer, as a run changes and keeps them.

    base: where an adapter is trained in place of the model; checkpoints then hold the adapter alone
    head: more parameters that are trained beside the model, and kept in a file of their own
    """

    model: Transformer
    tokenizer: Tokenizer
    base: Base | None = None
    head: nn.Module | None = None

    @classmethod
    def begin(
        cls, model: Transformer, tokenizer: Tokenizer, *, base: Path | None, lora: LoraConfig | None, seed: int
    ) -> "TrainedModel":
        """The model as a run begins with it: with a fresh adapter where `lora` asks for one.

        base: where `model` was loaded from; needed for an adapter
        """
        if lora is None:
            return cls(model=model, tokenizer=tokenizer)
        assert base is not None, "an adapter needs a base that lies somewhere"
        # The checkpoint itself, not the run around it, so that other programs find the model there.
        place = Path(os.path.relpath(find_checkpoint(base)))
        mark = fingerprint(model)
        add_lora(model, lora, seed)
        return cls(model=model, tokenizer=tokenizer, base=Base(place, mark, lora))

    def describe(self) -> str:
        parameters = list(self.model.parameters())
        text = f"{sum(parameter.numel() for parameter in parameters) / 1e6:.1f}M parameters"
        if self.base is None:
            return text
        trained = sum(parameter.numel() for parameter in parameters if parameter.requires_grad)
        return f"{text}, of which {trained / 1e6:.2f}M in an adapter of rank {self.base.lora.rank} are trained"

    def save(self, folder: Path, extra_files: Mapping[str, bytes | Callable[[Path], None]], extra_bytes: int) -> None:
        """Write a checkpoint folder, or leave everything as it was. Errors: CheckpointError"""
        files = dict(extra_files)
        if self.head is not None:
            weights = {name: tensor.detach().cpu().contiguous() for name, tensor in self.head.state_dict().items()}
            files[HEAD] = lambda path: save_file(weights, path)
        if self.base is None:
            save_checkpoint(folder, self.model, self.tokenizer, extra_files=files, extra_bytes=extra_bytes)
            return
        save_adapter(
            folder,
            self.model,
            base=str(self.base.folder),
            base_fingerprint=self.base.fingerprint,
            config=self.base.lora,
            tokenizer_fingerprint=self.tokenizer.fingerprint,
            extra_files=files,
            extra_bytes=extra_bytes,
        )

    def save_merged(self, folder: Path) -> None:
        """Write the model as it answers now, an adapter merged, for a server to load. Errors: CheckpointError"""
        model = self.model
        if self.base is not None:
            model = copy.deepcopy(model)
            merge_lora(model)
        save_checkpoint(folder, model, self.tokenizer)

    def load(self, folder: Path) -> None:
        """Take the weights of a checkpoint that `save` wrote, and whose hashes `verify_folder` has compared.

        Errors: CheckpointError, of another tokenizer too
        """
        if self.base is not None:
            load_adapter(self.model, folder, self.tokenizer.fingerprint)
        else:
            tokenizer = Tokenizer.load(folder)
            if tokenizer.fingerprint != self.tokenizer.fingerprint:
                raise CheckpointError(
                    f"{folder}: trained with tokenizer {tokenizer.fingerprint[:12]}, got "
                    f"{self.tokenizer.fingerprint[:12]}; set the tokenizer back or choose another run folder"
                )
            self.model.load_state_dict(model_files(folder).read(torch.float32))
        if self.head is not None:
            try:
                self.head.load_state_dict(load_file(folder / HEAD))
            except (OSError, SafetensorError, RuntimeError) as error:
                raise CheckpointError(
                    f"{folder / HEAD}: cannot be used: {why(error)}; use an earlier checkpoint"
                ) from error
