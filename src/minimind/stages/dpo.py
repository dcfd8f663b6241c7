"""`minimind dpo`: a model learns which of two answers people prefer."""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from pydantic import Field

from minimind.config import DATA, FREE, Config
from minimind.data.pair_source import PairSource, collate_pairs, load_reference, reference_logprobs, save_reference
from minimind.data.pairs import Pairs, read_pairs, split_pairs
from minimind.interfaces import Batch, Source
from minimind.lora import LoraConfig
from minimind.objectives.logprobs import batch_logprobs
from minimind.objectives.preference import Preference
from minimind.stages.shared.samples import answer_samples
from minimind.storage.checkpoint import fingerprint, load_model
from minimind.text.tokenizer import Tokenizer
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

    source: list[str] = Field(
        json_schema_extra=DATA, min_length=1, description="Files, folders, globs, hf://owner/name with pairs."
    )
    valid: list[str] = Field(
        default=[], json_schema_extra=DATA, description="Pairs to validate on, in place of a part."
    )
    valid_fraction: float = Field(
        default=0.05,
        ge=0,
        lt=1,
        json_schema_extra=DATA,
        description="Share of prompts held out, unless `valid` names some.",
    )
    context: int = Field(
        default=1024, ge=2, json_schema_extra=DATA, description="A pair with a longer side is dropped, and counted."
    )
    batch_pairs: int = Field(default=16, ge=1, json_schema_extra=DATA, description="Pairs of a step, over all ranks.")
    max_bad_rows: int = Field(
        default=0, ge=0, json_schema_extra=DATA, description="How many broken rows may be skipped."
    )


class PreferenceConfig(Config):
    """What is learnt from a pair; see objectives/preference.py."""

    beta: float = Field(default=0.1, gt=0, description="How firmly the model is held to where it began.")
    loss: Literal["sigmoid", "ipo"] = Field(
        default="sigmoid", description="sigmoid is DPO's; ipo stops at a fixed margin."
    )
    label_smoothing: float = Field(
        default=0.0, ge=0, lt=0.5, description="How often the labels are thought to be swapped."
    )
    length_normalised: bool = Field(
        default=False, description="Compare answers by token, so that length is no advantage."
    )


class DpoConfig(Config):
    """A fine-tuned model learns to make the chosen of two answers likelier than the rejected one."""

    run: Path = Field(json_schema_extra=FREE, description="The run folder; an interrupted run in it goes on.")
    model: Path = Field(description="The model to start from, and to be held to.")
    data: PairConfig = Field(description="What to learn from.")
    dpo: PreferenceConfig = Field(default=PreferenceConfig(), description="What is learnt from a pair.")
    lora: LoraConfig | None = Field(default=None, description="Train an adapter in place of the model.")
    train: UpdateConfig = Field(
        default=UpdateConfig(optimizer="adamw", lr=5e-5, embedding_lr=5e-5, beta1=0.9, beta2=0.99, valid_every=50),
        description="How to train.",
    )
    sample_prompts: list[str] = Field(
        default=["Who are you?", "你是谁？"],
        json_schema_extra=FREE,
        description="Questions to answer at each validation.",
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

    def source(placement: Placement) -> Source:
        return PairSource(
            pairs,
            batch_pairs=config.data.batch_pairs,
            seed=config.train.seed,
            reference=_reference(config, "train", pairs, began, placement),
            accumulate=config.train.accumulate,
            rank=placement.world.rank,
            ranks=placement.world.size,
        )

    def validation(placement: Placement) -> Validation:
        reference = _reference(config, "valid", valid, began, placement)
        numbers = range(placement.world.rank, len(valid), placement.world.size)
        parts = [numbers[at : at + MEASURED_PAIRS] for at in range(0, max(len(numbers), 1), MEASURED_PAIRS)]
        batches = [collate_pairs(valid, part, reference) for part in parts]

        def validate(trainer: Trainer) -> Mapping[str, float]:
            return {f"valid_{name}": value for name, value in trainer.measure(batches).items()}

        return validate

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
            validation=validation if len(valid) else None,
            sample=answer_samples(trained, config.sample_prompts),
            inputs={"data.source": pairs.fingerprint, "model": began},
        )
    )


def _read(data: PairConfig, tokenizer: Tokenizer) -> tuple[Pairs, Pairs]:
    """Pairs to learn from and to validate on; what was left out is told."""

    def read(sources: list[str]) -> Pairs:
        found = read_pairs(sources, tokenizer, context=data.context, max_bad_rows=data.max_bad_rows)
        left_out = {**found.dropped, **({"bad rows": found.bad_rows} if found.bad_rows else {})}
        if left_out:
            print(f"left out of {', '.join(sources)}: {', '.join(f'{name} {n:,}' for name, n in left_out.items())}")
        return found

    pairs = read(data.source)
    return (pairs, read(data.valid)) if data.valid else split_pairs(pairs, data.valid_fraction)


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
        print(
            f"reference log-probabilities of {len(pairs):,} pairs kept in {path} ({figures.nbytes / 1e3:,.0f} kB); the "
            f"reference model ({megabytes:,.0f} MB) is not held while training"
        )
    return figures
