"""`minimind sft`: conversations -> a model that answers. Only what the assistant says itself is learnt."""

from pathlib import Path

from minimind.config import REQUIRED, option
from minimind.objectives.next_token import NextToken
from minimind.stages.shared.rows import (
    ConversationsConfig,
    learnt_documents,
    open_documents,
    packed_source,
    packed_validation,
    warn_of_other_kind,
)
from minimind.stages.shared.samples import answer_samples
from minimind.stages.shared.settled import settled
from minimind.stages.shared.training_options import SampledTrainingOptions
from minimind.storage.adapters import fingerprint
from minimind.storage.checkpoint import load_model
from minimind.training.fit import fit
from minimind.training.job import TrainingJob
from minimind.training.settings import TrainConfig
from minimind.training.trained_model import TrainedModel

__all__ = ["SftConfig", "run"]


class SftConfig(SampledTrainingOptions):
    """A pretrained model learns to answer: conversations, thinking and tool calls alike."""

    model: Path = option(REQUIRED, "The model to start from: a run folder, a checkpoint, or a Hugging Face folder.")
    data: ConversationsConfig = option(REQUIRED, "What to learn from.")
    train: TrainConfig = TrainConfig()


def run(config: SftConfig) -> None:
    """Train into `config.run`, or go on where it was interrupted."""
    model, tokenizer = load_model(config.model)
    began = fingerprint(model)
    trained = TrainedModel.begin(model, tokenizer, base=config.model, lora=config.lora, seed=config.train.seed)
    prepared, valid = open_documents(config.data, tokenizer, config.run)
    warn_of_other_kind(prepared, "conversation")
    documents = learnt_documents(prepared, config.data)
    train = settled(config.train, config.run, prepared, documents, config.data.context)

    fit(
        TrainingJob(
            name="sft",
            folder=config.run,
            config=config.model_copy(update={"train": train}),
            train=train,
            context=config.data.context,
            trained=trained,
            objective=NextToken(config.train.router_coefficient),
            source=packed_source(documents, config.data.context, train.batch_tokens),
            validation=packed_validation(valid, config.data.context, tokenizer),
            sample=answer_samples(trained, config.sample_prompts),
            inputs={"data.source": prepared.fingerprint, "model": began},
        )
    )
