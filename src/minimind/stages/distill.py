"""`minimind distill`: a small model learns from a larger one what it finds likely at every token, beside the data."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from minimind.config import REQUIRED, Config, option
from minimind.data.fitting import FittedDocuments, fitted
from minimind.data.loader import Documents, plan_rows
from minimind.data.shards import ShardSet
from minimind.data.teacher import KeptTeacher, TeacherRows, TeacherSettings, keep_teacher
from minimind.errors import ConfigError
from minimind.interfaces import Batch
from minimind.model import ModelConfig, Transformer
from minimind.objectives.distillation import Distillation, KeptDistillation, keep_likeliest, require_same_vocabulary
from minimind.objectives.next_token import NextToken
from minimind.stages.shared.fresh_model import make_model
from minimind.stages.shared.rows import DataConfig, open_documents, packed_source, packed_validation
from minimind.stages.shared.samples import continue_samples
from minimind.stages.shared.settled import settled
from minimind.stages.shared.training_options import SampledTrainingOptions
from minimind.storage.adapters import fingerprint
from minimind.storage.checkpoint import load_model
from minimind.terminal.progress import TrainingProgress
from minimind.training.distributed import num_processes
from minimind.training.epoch_source import EpochSource
from minimind.training.fit import fit
from minimind.training.job import Placement, TrainingJob
from minimind.training.settings import TrainConfig
from minimind.training.trained_model import TrainedModel

__all__ = ["DistillConfig", "TeacherConfig", "run"]


class TeacherConfig(Config):
    """Who is learnt from, and how much of it."""

    model: Path = option(REQUIRED, "The teacher: a run folder, a checkpoint, or a Hugging Face folder.")
    alpha: float = option(0.5, "Share of the teacher in the loss; the rest is the text's own.", ge=0, le=1)
    temperature: float = option(2.0, "Above 1 shows more of what the teacher finds less likely.", gt=0)
    num_kept: int = option(
        0, "Keep the teacher's likeliest ids of each token on the disk; 0 asks it at every step.", ge=0
    )


class DistillConfig(SampledTrainingOptions):
    """A student learns from data and from a teacher with the same vocabulary."""

    teacher: TeacherConfig = option(REQUIRED, "Who is learnt from.")
    base: Path | None = option(None, "The student to begin with; by default a new model.")
    model: ModelConfig = option(ModelConfig(), "The shape of a new student.")
    data: DataConfig = option(REQUIRED, "What to learn from.")
    train: TrainConfig = TrainConfig()
    sample_prompts: list[str] = option(["The", "今天"], "Texts to continue at each validation.", kind="free")


def run(config: DistillConfig) -> None:
    """Train into `config.run`, or go on where it was interrupted."""
    teacher, tokenizer = load_model(config.teacher.model)
    if config.base is None and config.lora is not None:
        raise ConfigError("lora adapts a model that is there; set base to one, or leave the lora section out")
    if config.base is not None:
        if config.model != ModelConfig():
            raise ConfigError("base brings its own shape; leave out the model section")
        student, own = load_model(config.base)
        require_same_vocabulary(own, tokenizer)
    else:
        student = make_model(config.model, tokenizer, config.train.seed)
    if config.data.context > teacher.config.max_position_embeddings:
        raise ConfigError(
            f"data.context is {config.data.context}, more than the {teacher.config.max_position_embeddings} positions "
            "that the teacher knows; lower it"
        )
    prepared, valid = open_documents(config.data, tokenizer, config.run)
    documents = fitted(prepared, config.data.context)
    train = settled(config.train, config.run, prepared, documents, config.data.context)
    config = config.model_copy(update={"train": train})
    source, objective = _learn_from(config, teacher, documents, tokenizer.vocab_size)
    inputs = {"data.source": documents.fingerprint, "teacher.model": fingerprint(teacher)}
    inputs |= {"base": fingerprint(student)} if config.base else {}
    trained = TrainedModel.begin(student, tokenizer, base=config.base, lora=config.lora, seed=config.train.seed)

    fit(
        TrainingJob(
            name="distill",
            folder=config.run,
            config=config,
            train=config.train,
            context=config.data.context,
            trained=trained,
            objective=objective,
            source=source,
            # The student's own loss on text, to compare with that of any other training.
            validation=packed_validation(valid, config.data.context, tokenizer, NextToken()),
            sample=continue_samples(trained, config.sample_prompts),
            inputs=inputs,
        )
    )


def _learn_from(
    config: DistillConfig, teacher: Transformer, documents: ShardSet | FittedDocuments, num_ids: int
) -> tuple[Callable[[Placement], EpochSource], Distillation | KeptDistillation]:
    """Rows and an objective: the teacher asked as it goes, or what was kept of it."""
    settings, data = config.teacher, config.data
    options = {"num_ids": num_ids, "router_coefficient": config.train.router_coefficient}
    if not settings.num_kept:

        def asked(placement: Placement) -> EpochSource:
            teacher.to(placement.world.device)
            return packed_source(documents, data.context, config.train.batch_tokens)(placement)

        return asked, Distillation(teacher, settings.temperature, settings.alpha, **options)

    kept_for = TeacherSettings(
        teacher=fingerprint(teacher),
        documents=documents.fingerprint,
        context=data.context,
        temperature=settings.temperature,
        num_kept=min(settings.num_kept, num_ids),
    )

    def kept(placement: Placement) -> EpochSource:
        folder = config.run / "teacher"
        if not folder.is_dir():
            _keep(folder, documents, kept_for, teacher, num_ids, placement)
        # All it has to say is on the disk, and its memory is free again.
        teacher.to("meta")
        rows = partial(TeacherRows, teacher=KeptTeacher(folder, documents, kept_for))
        return packed_source(documents, data.context, config.train.batch_tokens, rows)(placement)

    return kept, KeptDistillation(settings.temperature, settings.alpha, **options)


def _keep(
    folder: Path,
    documents: Documents,
    settings: TeacherSettings,
    teacher: Transformer,
    num_ids: int,
    placement: Placement,
) -> None:
    if num_processes() > 1:
        raise ConfigError(
            f"{folder}: not there, and {num_processes()} processes would each write it; "
            "start this command as one process until training begins, then with all"
        )
    teacher.to(placement.world.device)

    def best(batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        with placement.precision():
            found = keep_likeliest(
                teacher,
                batch.to(placement.world.device),
                settings.num_kept,
                temperature=settings.temperature,
                num_ids=num_ids,
            )
        return found.teacher_ids, found.teacher_logprobs

    rows = len(plan_rows(documents.lengths, settings.context, seed=0))
    with TrainingProgress("asking the teacher", rows, 0) as progress:
        keep_teacher(folder, documents, settings, best, lambda done, _: progress.update(done, {}))
