"""`minimind dpo`: a model learns which of two answers people prefer."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from minimind.config import REQUIRED, Config, option
from minimind.data.columns import ColumnNames, columns_by_name
from minimind.data.counts import in_words
from minimind.data.pair_source import PairSource, collate_pairs, load_reference, reference_logprobs, save_reference
from minimind.data.pairs import Pairs, read_pairs, split_pairs
from minimind.interfaces import Batch
from minimind.objectives.logprobs import batch_logprobs
from minimind.objectives.preference import Preference
from minimind.stages.shared.samples import answer_samples
from minimind.stages.shared.training_options import SampledTrainingOptions
from minimind.storage.adapters import fingerprint
from minimind.storage.checkpoint import load_model
from minimind.terminal.notes import note, warn
from minimind.text.tokenizer import Tokenizer
from minimind.training.epoch_source import EpochSource
from minimind.training.fit import fit
from minimind.training.job import Placement, TrainingJob, Validation
from minimind.training.settings import UpdateConfig
from minimind.training.trained_model import TrainedModel
from minimind.training.trainer import Trainer

__all__ = ["DpoConfig", "PairConfig", "PreferenceConfig", "run"]

# Pairs computed at once where nothing is learnt.
MEASURED_PAIRS = 8


class PairConfig(Config):
    """Preference pairs: rows with chosen and rejected."""

    source: list[str] = option(
        REQUIRED, "Files, folders, globs, hf://owner/name with pairs.", kind="data", min_length=1
    )
    valid: list[str] = option([], "Pairs to validate on, in place of a part.", kind="data")
    valid_fraction: float = option(
        0.05, "Share of prompts held out, unless `valid` names some.", kind="data", ge=0, lt=1
    )
    context: int = option(1024, "A pair with a longer side is dropped, and counted.", kind="data", ge=2)
    batch_pairs: int = option(16, "Pairs of a step, over all ranks.", kind="data", ge=1)
    columns: ColumnNames = option(
        [],
        "Of rows in no known shape: which column is which, such as prompt=question chosen=good rejected=bad.",
        kind="data",
    )
    max_bad_rows: int = option(0, "How many broken rows may be skipped.", kind="data", ge=0)


class PreferenceConfig(Config):
    """What is learnt from a pair; see objectives/preference.py."""

    beta: float = option(0.1, "How firmly the model is held to where it began.", gt=0)
    loss: Literal["sigmoid", "ipo"] = option("sigmoid", "sigmoid is DPO's; ipo stops at a fixed margin.")
    label_smoothing: float = option(0.0, "How often the labels are thought to be swapped.", ge=0, lt=0.5)
    length_normalised: bool = option(False, "Compare answers by token, so that length is no advantage.")


class DpoConfig(SampledTrainingOptions):
    """A fine-tuned model learns to make the chosen of two answers likelier than the rejected one."""

    model: Path = option(REQUIRED, "The model to start from, and to be held to.")
    data: PairConfig = option(REQUIRED, "What to learn from.")
    dpo: PreferenceConfig = option(PreferenceConfig(), "What is learnt from a pair.")
    train: UpdateConfig = UpdateConfig(
        optimizer="adamw", lr=5e-5, embedding_lr=5e-5, beta1=0.9, beta2=0.99, valid_every=50
    )


def run(config: DpoConfig) -> None:
    """Train into `config.run`, or go on where it was interrupted."""
    model, tokenizer = load_model(config.model)
    pairs, valid = _read(config.data, tokenizer)
    began = fingerprint(model)
    settings = config.dpo
    objective = Preference(
        settings.beta,
        settings.loss,
        label_smoothing=settings.label_smoothing,
        length_normalised=settings.length_normalised,
        router_coefficient=config.train.router_coefficient,
    )
    trained = TrainedModel.begin(model, tokenizer, base=config.model, lora=config.lora, seed=config.train.seed)

    def source(placement: Placement) -> EpochSource:
        return PairSource(
            pairs,
            batch_pairs=config.data.batch_pairs,
            seed=config.train.seed,
            reference=_reference(config, "train", pairs, began, placement),
            accumulate=config.train.accumulate,
            rank=placement.world.rank,
            ranks=placement.world.size,
        )

    fit(
        TrainingJob(
            name="dpo",
            folder=config.run,
            config=config,
            train=config.train,
            context=config.data.context,
            trained=trained,
            objective=objective,
            source=source,
            validation=partial(_validation, config, valid, began) if len(valid) else None,
            sample=answer_samples(trained, config.sample_prompts),
            inputs={"data.source": pairs.fingerprint, "model": began},
        )
    )


def _read(data: PairConfig, tokenizer: Tokenizer) -> tuple[Pairs, Pairs]:
    """Pairs to learn from and to validate on; what was left out is told."""

    def read(sources: list[str]) -> Pairs:
        columns = columns_by_name(data.columns)
        found = read_pairs(sources, tokenizer, context=data.context, columns=columns, max_bad_rows=data.max_bad_rows)
        left_out = {**found.dropped, **({"bad rows": found.bad_rows} if found.bad_rows else {})}
        if left_out:
            note(f"left out of {', '.join(sources)}: {', '.join(f'{name} {n:,}' for name, n in left_out.items())}")
        if found.unread:
            warn(f"not read, though it could change what is learnt: {in_words(found.unread)}")
        return found

    pairs = read(data.source)
    return (pairs, read(data.valid)) if data.valid else split_pairs(pairs, data.valid_fraction)


def _validation(config: DpoConfig, pairs: Pairs, began: str, placement: Placement) -> Validation:
    reference = _reference(config, "valid", pairs, began, placement)
    numbers = range(placement.world.rank, len(pairs), placement.world.size)
    parts = [numbers[at : at + MEASURED_PAIRS] for at in range(0, max(len(numbers), 1), MEASURED_PAIRS)]
    batches = [collate_pairs(pairs, part, reference) for part in parts]

    def validate(trainer: Trainer) -> Mapping[str, float]:
        return {f"valid_{name}": value for name, value in trainer.measure(batches).items()}

    return validate


def _reference(config: DpoConfig, part: str, pairs: Pairs, began: str, placement: Placement) -> np.ndarray:
    """What the model that training began with says of each answer: computed once, and kept in the run."""
    dtype = str(placement.dtype).removeprefix("torch.")
    path = config.run / f"reference-{part}-{dtype}.safetensors"
    kept = load_reference(path, pairs=pairs.fingerprint, model=began)
    if kept is not None:
        return kept
    # Loaded anew: the model in training may have moved on already.
    model, _ = load_model(config.model, device=placement.world.device)

    def logprobs(batch: Batch) -> torch.Tensor:
        with placement.precision():
            return batch_logprobs(model, batch)

    figures = reference_logprobs(logprobs, pairs, batch_pairs=MEASURED_PAIRS, device=placement.world.device)
    if placement.world.is_main:
        save_reference(path, figures, pairs=pairs.fingerprint, model=began)
        megabytes = sum(parameter.numel() for parameter in model.parameters()) * 4 / 1e6
        note(
            f"reference log-probabilities of {len(pairs):,} pairs kept in {path} ({figures.nbytes / 1e3:,.0f} kB); the "
            f"reference model ({megabytes:,.0f} MB) is not held while training"
        )
    return figures
