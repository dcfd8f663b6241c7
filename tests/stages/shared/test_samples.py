"""Samples are greedy, so that those of two steps differ by what was learnt between them, and nothing else."""

import torch

from minimind.model import ModelConfig, Transformer
from minimind.stages.shared.samples import answer_samples, continue_samples
from minimind.text.tokenizer import Tokenizer
from minimind.training.trained_model import TrainedModel

PROMPTS = ["the cat", "a dog?"]


def make() -> TrainedModel:
    torch.manual_seed(0)
    tokenizer = Tokenizer.train(["the cat sat on the mat"], 300)
    shape = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1}
    model = Transformer(ModelConfig(vocab_size=300, head_dim=8, intermediate_size=24, **shape))
    return TrainedModel(model=model.eval(), tokenizer=tokenizer)


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
