"""Samples are greedy, so that those of two steps differ by what was learnt between them, and nothing else."""

import torch
from tests.tiny import TOKENIZER, random_model

from minimind.stages.shared.samples import answer_samples, continue_samples
from minimind.training.trained_model import TrainedModel

PROMPTS = ["the cat", "a dog?"]


def make() -> TrainedModel:
    return TrainedModel(model=random_model(), tokenizer=TOKENIZER)


def test_each_prompt_has_a_text_and_the_same_again() -> None:
    trained = make()
    for samples in (continue_samples, answer_samples):
        sample = samples(trained, PROMPTS)
        first = sample()
        assert [prompt for prompt, _ in first] == PROMPTS and all(text for _, text in first)
        assert sample() == first


def test_samples_are_of_the_weights_at_that_moment() -> None:
    trained = make()
    sample = continue_samples(trained, PROMPTS)
    before = sample()
    with torch.no_grad():
        trained.model.embed_tokens.weight.mul_(-1).add_(torch.randn_like(trained.model.embed_tokens.weight))
    assert sample() != before
