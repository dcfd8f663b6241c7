"""What a model says at each validation, to be read beside the curves: texts continued, or questions answered."""

from collections.abc import Callable

from minimind.generation.generate import complete, generate
from minimind.generation.sampling import Sampling
from minimind.text.conversation import Message, render_prompt
from minimind.training.trained_model import TrainedModel

__all__ = ["answer_samples", "continue_samples"]


def continue_samples(trained: TrainedModel, prompts: list[str]) -> Callable[[], list[tuple[str, str]]]:
    """Greedy continuations of the prompts."""

    def sample() -> list[tuple[str, str]]:
        texts = generate(trained.model, trained.tokenizer, prompts, max_tokens=48, temperature=0.0)
        return list(zip(prompts, texts, strict=True))

    return sample


def answer_samples(trained: TrainedModel, questions: list[str]) -> Callable[[], list[tuple[str, str]]]:
    """Greedy answers to the questions."""
    prompts = [render_prompt([Message("user", question)], (), trained.tokenizer) for question in questions]

    def sample() -> list[tuple[str, str]]:
        answers = complete(trained.model, trained.tokenizer, prompts, Sampling(temperature=0.0, max_tokens=64))
        return [(question, answer.text) for question, answer in zip(questions, answers, strict=True)]

    return sample
