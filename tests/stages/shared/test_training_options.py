"""What verbs that train have in common is declared once, and said of each in the same words."""

import pytest

from minimind.config import options
from minimind.stages import load_stage
from minimind.stages.shared.training_options import SampledTrainingOptions, TrainingOptions

SHARED = {option.name: option for option in options(TrainingOptions)}


@pytest.mark.parametrize("verb", ["pretrain", "sft", "dpo", "distill", "grpo", "ppo", "agent"])
def test_every_verb_that_trains_says_the_same_of_what_all_have(verb: str) -> None:
    config_class, _ = load_stage(verb)
    assert issubclass(config_class, TrainingOptions)
    own = {option.name: option for option in options(config_class)}
    told = {name: (own[name].description, own[name].kind) for name in SHARED}
    assert told == {name: (option.description, option.kind) for name, option in SHARED.items()}


@pytest.mark.parametrize("verb", ["pretrain", "sft", "dpo", "distill"])
def test_the_prompts_of_samples_may_change_when_a_run_goes_on(verb: str) -> None:
    config_class, _ = load_stage(verb)
    assert issubclass(config_class, SampledTrainingOptions)
    assert {option.name: option.kind for option in options(config_class)}["sample_prompts"] == "free"
