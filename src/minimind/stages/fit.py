"""What every training stage does around the loop: join the ranks, resume, validate, sample, save, show progress.

A stage brings a model, an objective, its data and a run; `fit` brings them together. No stage has a loop of its own.
"""

import hashlib
import json
import math
import shutil
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field
from safetensors.torch import save_file

from minimind.checkpoint import load_model, save_checkpoint, verify_checkpoint
from minimind.config import DATA, Config
from minimind.data.loader import Documents, PackedRows
from minimind.data.shards import ShardSet
from minimind.errors import CheckpointError, ConfigError, RunError, TrainingError
from minimind.interfaces import Batch, Objective
from minimind.model import Transformer
from minimind.run import Run, RunReader
from minimind.tokenizer import Tokenizer
from minimind.training.compilation import compile_blocks, compile_if_faster
from minimind.training.distributed import World, join, leave, num_processes
from minimind.training.optimizer import Optimizers, make_optimizers
from minimind.training.precision import fastest_dtype, precision_context, reuse_freed_memory
from minimind.training.progress import TrainingProgress
from minimind.training.settings import TrainConfig
from minimind.training.state import load_training_state, read_training_facts, training_state_files
from minimind.training.trainer import Hooks, Trainer, train

__all__ = ["DataConfig", "Task", "fit", "open_documents"]

# Enough for a validation loss steady to about 0.01, and a few seconds of work.
VALID_TOKENS = 65536


class DataConfig(Config):
    """What a stage learns from."""

    source: list[str] = Field(
        json_schema_extra=DATA,
        min_length=1,
        description="A folder that `minimind prepare` wrote; or files, folders, globs, hf://owner/name, builtin://name.",
    )
    context: int = Field(
        1024, ge=2, json_schema_extra=DATA, description="Tokens of a row; a longer document is split over several."
    )


@dataclass(frozen=True, kw_only=True)
class Task:
    """What a stage brings.

    sample: the model -> (prompt, text) pairs to keep beside the curves
    inputs: option -> fingerprint of what lies where it points; a run is not resumed with another
    """

    name: str
    folder: Path
    config: Config
    train: TrainConfig
    context: int
    model: Transformer
    tokenizer: Tokenizer
    objective: Objective
    documents: Documents
    valid: Documents | None
    sample: Callable[[Transformer], list[tuple[str, str]]]
    inputs: Mapping[str, str] = field(default_factory=dict)


def open_documents(data: DataConfig, tokenizer: Tokenizer, folder: Path) -> tuple[ShardSet, ShardSet | None]:
    """The training and validation documents: prepared ones as they are, raw sources prepared into `folder`/data-*.

    Errors: ConfigError for raw sources and several processes, of which each would prepare them; DataError
    """
    from minimind.data.prepare import prepare

    place = Path(data.source[0])
    if not (len(data.source) == 1 and (place / "train" / "index.json").is_file()):
        # Another source, tried before the run began, must not be taken for this one.
        place = folder / f"data-{hashlib.sha256(json.dumps(data.source).encode()).hexdigest()[:8]}"
        if not (place / "train" / "index.json").is_file():
            if num_processes() > 1:
                raise ConfigError(
                    f"data.source is {', '.join(data.source)}, which {num_processes()} processes would each prepare; "
                    "prepare it first with `minimind prepare`, and name the folder that it writes"
                )
            prepare(data.source, tokenizer, place)
    valid = place / "valid"
    return ShardSet.open(place / "train", tokenizer), ShardSet.open(valid, tokenizer) if valid.is_dir() else None


def fit(task: Task) -> None:
    """Train `task.model` into the run at `task.folder`, resuming it if it was started before.

    Errors: ConfigError, DataError, RunError, CheckpointError, TrainingError; SystemExit at a signal
    """
    if task.context > task.model.config.max_position_embeddings:
        raise ConfigError(
            f"data.context is {task.context}, more than the model's max_position_embeddings "
            f"{task.model.config.max_position_embeddings}; lower the first"
        )
    reuse_freed_memory()
    world = join(task.train.device)
    try:
        with ExitStack() as stack:
            run = stack.enter_context(Run.create(task.folder, task.config)) if world.is_main else None
            world.wait()
            _Fit(task, world, run).train()
    except torch.OutOfMemoryError as error:
        raise TrainingError(
            f"out of memory on {world.device}; the same loss fits with --train.accumulate {task.train.accumulate * 2} "
            "or --train.recompute"
        ) from error
    finally:
        leave()


class _Fit:
    """One call of `fit`: everything resolved, on this rank."""

    def __init__(self, task: Task, world: World, run: Run | None) -> None:
        self.task, self.world, self.run, self.settings = task, world, run, task.train
        source = self._rows(task.documents, self.settings.batch_tokens, self.settings.accumulate)
        total = self.settings.steps or math.ceil(source.steps_per_epoch * self.settings.epochs)
        self.model = task.model.to(world.device)
        self.model.recompute_blocks = self.settings.recompute
        checkpoint = self._load_weights()
        world.copy_from_main(self.model.parameters())
        facts = read_training_facts(checkpoint) if checkpoint else {}
        self._refuse_other_inputs(facts)
        self.dtype = self._choose_dtype(facts)
        self.optimizers = self._make_optimizers()
        if checkpoint:
            load_training_state(checkpoint, self.model, self.optimizers)
        self.seconds = facts.get("seconds", 0.0)
        self.trainer = Trainer(
            model=self.model,
            objective=task.objective,
            source=source,
            optimizers=self.optimizers,
            settings=self.settings,
            total_steps=total,
            world=world,
            precision=lambda: precision_context(world.device, self.dtype),
            step=facts.get("step", 0),
            tokens=facts.get("tokens", 0),
            skipped=facts.get("skipped", 0),
        )
        if run is not None:
            run.rewind(self.trainer.step if checkpoint else None)
        self.is_compiled = self._maybe_compile(facts)
        self.valid_batches, self.tokens_per_byte = self._validation()
        self.progress = TrainingProgress(task.name, total, self.trainer.step, is_shown=world.is_main)

    def train(self) -> None:
        """Run the loop from where it stands, and mark the run as finished."""
        self._introduce()
        self.started = time.monotonic()
        hooks = Hooks(
            validate=self._validate, sample=self._sample, log=self._log, save=self._save, keep_bad=self._keep_bad
        )
        with self.progress:
            try:
                train(self.trainer, hooks)
            except SystemExit:
                self.progress.note(
                    f"stopped at step {self.trainer.step}; the checkpoint is whole, the same command goes on from it"
                )
                raise
        if self.run is not None:
            last = [row for row in self.run.metrics() if row.get("valid_loss") is not None][-1:]
            self.run.finish(last[0] if last else {"step": self.trainer.step})

    def _introduce(self) -> None:
        parameters = sum(parameter.numel() for parameter in self.model.parameters())
        source = self.trainer.source
        assert isinstance(source, PackedRows)
        dtype = str(self.dtype).removeprefix("torch.")
        self.progress.note(
            f"{self.task.name}: {parameters / 1e6:.1f}M parameters, {len(self.task.documents.lengths):,} documents in "
            f"{len(source.rows):,} rows of {self.task.context} ({source.fill:.1%} full), {self.trainer.total_steps:,} "
            f"steps of {self.settings.batch_tokens:,} tokens, {dtype}{', compiled' if self.is_compiled else ''}, "
            f"{self.world.size} process{'es' if self.world.size > 1 else ''}"
        )
        if self.trainer.step:
            self.progress.note(f"resuming at step {self.trainer.step}")

    def _rows(self, documents: Documents, batch_tokens: int, accumulate: int) -> PackedRows:
        return PackedRows(
            documents,
            context=self.task.context,
            batch_tokens=batch_tokens,
            seed=self.settings.seed,
            accumulate=accumulate,
            rank=self.world.rank,
            ranks=self.world.size,
        )

    def _load_weights(self) -> Path | None:
        """The newest checkpoint that is whole, loaded into the model; a damaged one is named and passed over."""
        folders = RunReader(self.task.folder).checkpoint_folders()
        for folder in reversed(folders):
            try:
                verify_checkpoint(folder)
            except CheckpointError as error:
                if self.world.is_main:
                    print(f"warning: {error}; trying the checkpoint before it")
                continue
            saved, tokenizer = load_model(folder)
            if tokenizer.fingerprint != self.task.tokenizer.fingerprint:
                raise CheckpointError(
                    f"{folder}: trained with tokenizer {tokenizer.fingerprint[:12]}, got "
                    f"{self.task.tokenizer.fingerprint[:12]}; set the tokenizer back or choose another run folder"
                )
            self.model.load_state_dict(saved.state_dict())
            return folder
        if folders:
            raise CheckpointError(f"{self.task.folder}: none of its {len(folders)} checkpoints is whole; start anew")
        return None

    def _refuse_other_inputs(self, facts: Mapping[str, Any]) -> None:
        """What an option points to may have been made anew under the same name, which comparing options cannot see."""
        for name, found in self.task.inputs.items():
            began = facts.get("inputs", {}).get(name, found)
            if began != found:
                raise RunError(
                    f"{self.task.folder}: {name} is no longer what this run began with (fingerprint {began[:12]}, now "
                    f"{found[:12]}); put it back, choose another run folder, or delete this one to train anew"
                )

    def _choose_dtype(self, facts: Mapping[str, Any]) -> torch.dtype:
        """What was asked for; else what the run began with; else what a measurement on rank 0 finds faster."""
        name = self.settings.dtype if self.settings.dtype != "auto" else facts.get("dtype")
        if name is not None:
            return torch.bfloat16 if name == "bfloat16" else torch.float32
        is_fast = fastest_dtype(self.world.device) == torch.bfloat16 if self.world.is_main else False
        return torch.bfloat16 if self.world.sum([float(is_fast)])[0] else torch.float32

    def _make_optimizers(self) -> Optimizers:
        settings = self.settings
        return make_optimizers(
            self.model,
            name=settings.optimizer,
            muon_lr=settings.muon_lr,
            lr=settings.lr,
            embedding_lr=settings.embedding_lr,
            weight_decay=settings.weight_decay,
            betas=(settings.beta1, settings.beta2),
            dtype=self.dtype,
        )

    def _maybe_compile(self, facts: Mapping[str, Any]) -> bool:
        choice: Literal["auto", "on", "off"] = self.settings.compile
        if "compiled" in facts:
            choice = "on" if facts["compiled"] else "off"
        if choice == "on":
            compile_blocks(self.model)
        # Ranks could measure differently, and must compute alike.
        if choice != "auto" or self.world.size > 1:
            return choice == "on"
        batches = self.trainer.source.micro_batches(self.trainer.step)

        def run_once() -> None:
            for batch in batches:
                self.trainer.sum_of(batch).total.backward()
            self.optimizers.zero_grad()

        return compile_if_faster(self.model, run_once, self.trainer.total_steps - self.trainer.step)

    def _validation(self) -> tuple[list[Batch], float]:
        """This rank's validation batches, the same each time, and how many weighted tokens a byte of their text is."""
        if self.task.valid is None or not len(self.task.valid.lengths):
            return [], 0.0
        rows = self._rows(self.task.valid, max(VALID_TOKENS, self.task.context), max(1, VALID_TOKENS // 4096))
        batches = list(rows.micro_batches(0))
        bytes_of_id = np.array([len(spelling) for spelling in self.task.tokenizer.token_bytes])
        spelled = sum(int(bytes_of_id[batch.targets[batch.weights != 0].numpy()].sum()) for batch in batches)
        weight, num_bytes = self.world.sum([sum(batch.weight for batch in batches), spelled])
        return batches, weight / num_bytes if num_bytes else 0.0

    def _validate(self) -> dict[str, float]:
        if not self.valid_batches:
            return {}
        figures = self.trainer.measure(self.valid_batches)
        result = {f"valid_{name}": value for name, value in figures.items()}
        if self.tokens_per_byte:
            result["bits_per_byte"] = figures["loss"] * self.tokens_per_byte / math.log(2)
        return result

    def _sample(self, step: int) -> None:
        if self.run is not None:
            for prompt, text in self.task.sample(self.model):
                self.run.log_sample(step, prompt, text)

    def _elapsed(self) -> float:
        return self.seconds + time.monotonic() - self.started

    def _log(self, step: int, metrics: Mapping[str, float]) -> None:
        self.progress.update(step, metrics)
        is_due = step % self.settings.log_every == 0 or "valid_loss" in metrics or step == self.trainer.total_steps
        if self.run is not None and is_due:
            self.run.log(step, {**metrics, "seconds": round(self._elapsed(), 3)})

    def _save(self, step: int) -> None:
        if self.run is not None:
            facts = {
                "step": step,
                "tokens": self.trainer.tokens,
                "skipped": self.trainer.skipped,
                "seconds": self._elapsed(),
                "dtype": str(self.dtype).removeprefix("torch."),
                "compiled": self.is_compiled,
                "inputs": dict(self.task.inputs),
            }
            folder = self.run.checkpoint_folder(step)
            # If one is there already, it was damaged and passed over when this run was resumed.
            shutil.rmtree(folder, ignore_errors=True)
            save_checkpoint(
                folder,
                self.model,
                self.task.tokenizer,
                extra_files=training_state_files(facts, self.model, self.optimizers),
                extra_bytes=8 * sum(parameter.numel() for parameter in self.model.parameters()),
            )
            self.run.point_latest(step)
            self.run.prune(self.settings.keep_checkpoints)
        self.world.wait()

    def _keep_bad(self, batches: list[Batch]) -> str:
        """Save what could not be learnt from, to look at and to replay."""
        path = self.task.folder / f"bad-batch-rank{self.world.rank}.safetensors"
        tensors = {
            f"{index}.{name}": getattr(batch, name).cpu().contiguous()
            for index, batch in enumerate(batches)
            for name in ("tokens", "targets", "weights")
        }
        # Where documents end decides what attention sees, so a batch without them could not be replayed.
        tensors |= {f"{i}.lengths": torch.tensor(batch.lengths) for i, batch in enumerate(batches) if batch.lengths}
        save_file(tensors, path)
        return str(path)
