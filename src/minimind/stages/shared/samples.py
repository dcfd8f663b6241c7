"""What a model says at each validation, to be read beside the curves: texts continued, or questions answered."""

from collections.abc import Callable

from minimind.generation.completions import complete_requests, complete_texts
from minimind.generation.request import Request
from minimind.generation.sampling import Sampling
from minimind.text.conversation import Message, render_prompt
from minimind.training.trained_model import TrainedModel

__all__ = ["answer_samples", "continue_samples"]


def continue_samples(trained: TrainedModel, prompts: list[str]) -> Callable[[], list[tuple[str, str]]]:
    """Greedy continuations of the prompts."""

    def sample() -> list[tuple[str, str]]:
        greedy = Sampling(temperature=0.0, max_tokens=48)
        texts = complete_texts(trained.model, trained.tokenizer, prompts, greedy)
        return list(zip(prompts, texts, strict=True))

    return sample


def answer_samples(trained: TrainedModel, questions: list[str]) -> Callable[[], list[tuple[str, str]]]:
    """Greedy answers to the questions."""
    tokenizer, greedy = trained.tokenizer, Sampling(temperature=0.0, max_tokens=64)
    prompts = [render_prompt([Message("user", question)], (), tokenizer) for question in questions]
    requests = [Request.for_answer(prompt, tokenizer, has_tools=False, sampling=greedy) for prompt in prompts]

    def sample() -> list[tuple[str, str]]:
        answers = complete_requests(trained.model, tokenizer, requests)
        return [(question, answer.message.content) for question, answer in zip(questions, answers, strict=True)]

    return sample
