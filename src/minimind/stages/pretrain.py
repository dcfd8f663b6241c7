"""`minimind pretrain`: prepared text -> a model that continues text."""

import dataclasses
from pathlib import Path

import torch
from pydantic import Field

from minimind.config import FREE, Config
from minimind.errors import ConfigError
from minimind.generation import generate
from minimind.model import ModelConfig, Transformer
from minimind.objectives.next_token import NextToken
from minimind.stages.fit import DataConfig, Task, fit, open_documents
from minimind.tokenizer import Tokenizer
from minimind.training.settings import TrainConfig

__all__ = ["PretrainConfig", "make_model", "run"]


class PretrainConfig(Config):
    """A new model learns to predict the next token of every document."""

    run: Path = Field(json_schema_extra=FREE, description="The run folder; an interrupted run in it goes on.")
    tokenizer: Path = Field(json_schema_extra=FREE, description="The folder that `minimind tokenizer` wrote.")
    data: DataConfig = Field(description="What to learn from.")
    model: ModelConfig = Field(ModelConfig(), description="The model's shape.")
    train: TrainConfig = Field(TrainConfig(), description="How to train.")
    sample_prompts: list[str] = Field(
        ["The", "今天"], json_schema_extra=FREE, description="Texts to continue at each validation."
    )


def make_model(config: ModelConfig, tokenizer: Tokenizer, seed: int) -> Transformer:
    """A fresh model with the tokenizer's vocabulary; `vocab_size` may ask for more rows than it has, not for fewer."""
    if config.vocab_size == ModelConfig.vocab_size:
        config = dataclasses.replace(config, vocab_size=tokenizer.vocab_size)
    if config.vocab_size < tokenizer.vocab_size:
        raise ConfigError(
            f"model.vocab_size is {config.vocab_size}, the tokenizer has {tokenizer.vocab_size} ids; "
            "leave the option out to take the tokenizer's"
        )
    torch.manual_seed(seed)
    return Transformer(config)


def run(config: PretrainConfig) -> None:
    """Train into `config.run`, or go on where it was interrupted."""
    tokenizer = Tokenizer.load(config.tokenizer)
    documents, valid = open_documents(config.data, tokenizer, config.run)

    def sample(model: Transformer) -> list[tuple[str, str]]:
        prompts = config.sample_prompts
        texts = generate(model, tokenizer, prompts, max_tokens=48, temperature=0.0)
        return list(zip(prompts, texts, strict=True))

    fit(
        Task(
            name="pretrain",
            folder=config.run,
            config=config,
            train=config.train,
            context=config.data.context,
            model=make_model(config.model, tokenizer, config.train.seed),
            tokenizer=tokenizer,
            objective=NextToken(config.train.router_coefficient),
            documents=documents,
            valid=valid,
            sample=sample,
            inputs={"data.source": documents.fingerprint},
        )
    )
