"""`minimind pretrain`: prepared text -> a model that continues text."""

from pathlib import Path

from minimind.config import REQUIRED, option
from minimind.data.fitting import fitted
from minimind.errors import ConfigError
from minimind.model import ModelConfig, Transformer
from minimind.objectives.next_token import NextToken
from minimind.stages.shared.fresh_model import make_model
from minimind.stages.shared.rows import DataConfig, open_documents, packed_source, packed_validation, warn_of_other_kind
from minimind.stages.shared.samples import continue_samples
from minimind.stages.shared.settled import settled
from minimind.stages.shared.training_options import SampledTrainingOptions
from minimind.storage.adapters import fingerprint
from minimind.storage.checkpoint import load_model
from minimind.text.tokenizer import Tokenizer
from minimind.training.fit import fit
from minimind.training.job import TrainingJob
from minimind.training.settings import TrainConfig
from minimind.training.trained_model import TrainedModel

__all__ = ["PretrainConfig", "run"]


class PretrainConfig(SampledTrainingOptions):
    """A new model learns to predict the next token of every document."""

    tokenizer: Path | None = option(
        None, "The folder that `minimind tokenizer` wrote; needed without `base`.", kind="free"
    )
    base: Path | None = option(None, "Go on from this model, with its shape and tokenizer, instead of from a new one.")
    data: DataConfig = option(REQUIRED, "What to learn from.")
    model: ModelConfig = option(ModelConfig(), "The model's shape.")
    train: TrainConfig = TrainConfig()
    sample_prompts: list[str] = option(["The", "今天"], "Texts to continue at each validation.", kind="free")


def _begin(config: PretrainConfig) -> tuple[Transformer, Tokenizer]:
    if config.base is not None:
        if config.tokenizer is not None or config.model != ModelConfig():
            raise ConfigError("base brings its own shape and tokenizer; leave out the model section and tokenizer")
        return load_model(config.base)
    if config.lora is not None:
        raise ConfigError("lora adapts a model that is there; set base to one, or leave the lora section out")
    if config.tokenizer is None:
        raise ConfigError("tokenizer is missing: set it to the folder that `minimind tokenizer` wrote, or set base")
    tokenizer = Tokenizer.load(config.tokenizer)
    return make_model(config.model, tokenizer, config.train.seed), tokenizer


def run(config: PretrainConfig) -> None:
    """Train into `config.run`, or go on where it was interrupted."""
    model, tokenizer = _begin(config)
    inputs = {"base": fingerprint(model)} if config.base else {}
    trained = TrainedModel.begin(model, tokenizer, base=config.base, lora=config.lora, seed=config.train.seed)
    prepared, valid = open_documents(config.data, tokenizer, config.run)
    warn_of_other_kind(prepared, "text")
    documents = fitted(prepared, config.data.context)
    train = settled(config.train, config.run, prepared, documents, config.data.context)

    fit(
        TrainingJob(
            name="pretrain",
            folder=config.run,
            config=config.model_copy(update={"train": train}),
            train=train,
            context=config.data.context,
            trained=trained,
            objective=NextToken(config.train.router_coefficient),
            source=packed_source(documents, config.data.context, train.batch_tokens),
            validation=packed_validation(valid, config.data.context, tokenizer),
            sample=continue_samples(trained, config.sample_prompts),
            inputs={**inputs, "data.source": prepared.fingerprint},
        )
    )
