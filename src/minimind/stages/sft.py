"""`minimind sft`: conversations -> a model that answers. Only what the assistant says itself is learnt."""

from pathlib import Path

from pydantic import Field

from minimind.checkpoint import fingerprint, load_model
from minimind.config import FREE, Config
from minimind.conversation import Message, render_prompt
from minimind.generation import complete
from minimind.model import Transformer
from minimind.objectives.next_token import NextToken
from minimind.sampling import Sampling
from minimind.stages.fit import DataConfig, Task, fit, open_documents
from minimind.training.settings import TrainConfig

__all__ = ["SftConfig", "run"]


class SftConfig(Config):
    """A pretrained model learns to answer: conversations, thinking and tool calls alike."""

    run: Path = Field(json_schema_extra=FREE, description="The run folder; an interrupted run in it goes on.")
    model: Path = Field(description="The model to start from: a run folder, a checkpoint, or a Hugging Face folder.")
    data: DataConfig = Field(description="What to learn from.")
    train: TrainConfig = Field(TrainConfig(), description="How to train.")
    sample_prompts: list[str] = Field(
        ["Who are you?", "你是谁？"], json_schema_extra=FREE, description="Questions to answer at each validation."
    )


def run(config: SftConfig) -> None:
    """Train into `config.run`, or go on where it was interrupted."""
    model, tokenizer = load_model(config.model)
    documents, valid = open_documents(config.data, tokenizer, config.run)

    def sample(model: Transformer) -> list[tuple[str, str]]:
        questions = [[Message("user", prompt)] for prompt in config.sample_prompts]
        prompts = [render_prompt(messages, (), tokenizer) for messages in questions]
        answers = complete(model, tokenizer, prompts, Sampling(temperature=0.0, max_tokens=64))
        return [(prompt, answer.text) for prompt, answer in zip(config.sample_prompts, answers, strict=True)]

    fit(
        Task(
            name="sft",
            folder=config.run,
            config=config,
            train=config.train,
            context=config.data.context,
            model=model,
            tokenizer=tokenizer,
            objective=NextToken(config.train.router_coefficient),
            documents=documents,
            valid=valid,
            sample=sample,
            inputs={"data.source": documents.fingerprint, "model": fingerprint(model)},
        )
    )
