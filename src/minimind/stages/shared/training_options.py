"""The options of every verb that trains: where the run lies, whether an adapter learns, how, and what is sampled."""

from pathlib import Path

from minimind.config import REQUIRED, Config, option
from minimind.lora import LoraConfig
from minimind.training.settings import UpdateConfig

__all__ = ["SampledTrainingOptions", "TrainingOptions"]


class TrainingOptions(Config):
    """What all of them have."""

    run: Path = option(REQUIRED, "The run folder; an interrupted run in it goes on.", kind="free")
    lora: LoraConfig | None = option(None, "Train an adapter in place of the model.")
    train: UpdateConfig = option(UpdateConfig(), "How to train.")


class SampledTrainingOptions(TrainingOptions):
    """What those have, too, that show what the model writes while it learns."""

    sample_prompts: list[str] = option(
        ["Who are you?", "你是谁？"], "Questions to answer at each validation.", kind="free"
    )
