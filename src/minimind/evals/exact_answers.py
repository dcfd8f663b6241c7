"""Questions with one right answer, asked the way a user asks them.

Each is answered greedily; when the answer calls tools they are run and the model goes on, as a server would. What
counts is that the final text equals the expected one, ends trimmed: no partial marks.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from minimind.conversation import Conversation
from minimind.errors import DataError
from minimind.evals.dialogues import Dialogue, answer_with_tools
from minimind.evals.measured import Measured, fingerprint_of
from minimind.model import Transformer
from minimind.sampling import Sampling
from minimind.tokenizer import Tokenizer

__all__ = ["Answer", "ExactAnswers", "exact_answers"]


@dataclass(frozen=True)
class Answer:
    """A question, what was expected and what came: `got` is the text of the last answer."""

    kind: str
    question: str
    expected: str
    got: str

    @property
    def is_right(self) -> bool:
        return self.got.strip() == self.expected.strip()


@dataclass(frozen=True)
class ExactAnswers:
    """All answers in the order of the questions."""

    answers: tuple[Answer, ...]

    @property
    def overall(self) -> Measured:
        """The share of right answers."""
        mark = fingerprint_of(f"{answer.question}\n{answer.expected}" for answer in self.answers)
        return Measured.share((answer.is_right for answer in self.answers), mark)

    @property
    def by_kind(self) -> dict[str, Measured]:
        kinds = dict.fromkeys(answer.kind for answer in self.answers)
        return {kind: ExactAnswers(tuple(a for a in self.answers if a.kind == kind)).overall for kind in kinds}


def exact_answers(
    model: Transformer,
    tokenizer: Tokenizer,
    questions: Iterable[Mapping[str, Any]],
    max_tokens: int = 128,
    batch_size: int = 32,
) -> ExactAnswers:
    """Ask rows `{"conversations", "answer", "kind"?, "thinking"?, "tools"?}`; see `builtin_conversations.py` for some.

    max_tokens: of each answer, reasoning and calls included
    """
    rows = list(questions)
    if not rows:
        raise DataError("there are no questions to ask; expected at least one row")
    dialogues = [_dialogue(row, number) for number, row in enumerate(rows, start=1)]
    answer_with_tools(model, tokenizer, dialogues, Sampling(temperature=0, max_tokens=max_tokens), batch_size)
    return ExactAnswers(tuple(map(_finished, rows, dialogues)))


def _dialogue(row: Mapping[str, Any], number: int) -> Dialogue:
    conversation = Conversation.parse(row, f"question {number}")
    return Dialogue(list(conversation.messages), conversation.tools, bool(row.get("thinking", False)))


def _finished(row: Mapping[str, Any], dialogue: Dialogue) -> Answer:
    question = next(m.content for m in reversed(dialogue.messages) if m.role == "user")
    return Answer(str(row.get("kind", "question")), question, str(row["answer"]), dialogue.text)
