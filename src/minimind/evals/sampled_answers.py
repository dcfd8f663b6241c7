"""Several answers drawn to each question: how likely is one right, and how likely at least one of k?

The figures are means over questions of the estimate in `pass_at_k.py`, with the standard error of questions that vary.
A question that does not fit the context cannot be answered, and counts as never answered rightly.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from minimind.errors import DataError
from minimind.evals.dialogues import AskedQuestion, answer_with_tools, has_room
from minimind.evals.measured import Measured, fingerprint_of
from minimind.evals.pass_at_k import pass_at_k
from minimind.generation.sampling import Sampling
from minimind.model import Transformer
from minimind.text.conversation import Message
from minimind.text.tokenizer import Tokenizer

__all__ = ["OpenQuestion", "SampledAnswers", "sample_answers"]


@dataclass(frozen=True)
class OpenQuestion:
    """Something to ask several times.

    expected:  what is right, as people read it
    is_right:  judges the text that an answer ends with
    """

    messages: tuple[Message, ...]
    tools: tuple[Mapping[str, Any], ...]
    expected: str
    is_right: Callable[[str], bool]
    thinking: bool = False
    kind: str = "question"

    @property
    def text(self) -> str:
        """The last thing that the user said."""
        return next((m.content for m in reversed(self.messages) if m.role == "user"), "")


@dataclass(frozen=True)
class SampledAnswers:
    """The texts that the answers to each question end with; none to a question that does not fit the context."""

    questions: Sequence[OpenQuestion]
    texts: Sequence[Sequence[str]]
    num_samples: int

    @property
    def kinds(self) -> list[str]:
        return list(dict.fromkeys(question.kind for question in self.questions))

    @property
    def num_too_long(self) -> int:
        return sum(not texts for texts in self.texts)

    def pass_at(self, k: int, kind: str | None = None) -> Measured:
        """pass@k, of the questions of one kind or of all. Errors: ConfigError where k is more than were drawn"""
        pairs = zip(self.questions, self.texts, strict=True)
        chosen = [(question, texts) for question, texts in pairs if kind in (None, question.kind)]
        shares = [pass_at_k(self.num_samples, sum(map(question.is_right, texts)), k) for question, texts in chosen]
        mark = fingerprint_of(f"{question.text}\n{question.expected}" for question, _ in chosen)
        return Measured(shares, [1.0] * len(shares), mark)


def sample_answers(
    model: Transformer,
    tokenizer: Tokenizer,
    questions: Sequence[OpenQuestion],
    sampling: Sampling,
    num_samples: int,
    batch_size: int = 32,
) -> SampledAnswers:
    """Ask each question `num_samples` times; tools of this package that an answer calls are run.

    sampling:  its seed decides all that is drawn; max_tokens is of each answer, reasoning and calls included
    """
    if not questions:
        raise DataError("there are no questions to ask; expected at least one row")
    asked = [
        [AskedQuestion(list(question.messages), question.tools, question.thinking) for _ in range(num_samples)]
        for question in questions
    ]
    asked = [dialogues if has_room(model, tokenizer, dialogues[0]) else [] for dialogues in asked]
    together = [dialogue for dialogues in asked for dialogue in dialogues]
    answer_with_tools(model, tokenizer, together, sampling, batch_size)
    return SampledAnswers(questions, [[dialogue.text for dialogue in dialogues] for dialogues in asked], num_samples)
