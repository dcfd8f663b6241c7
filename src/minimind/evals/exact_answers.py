"""Questions with one right answer, asked the way a user asks them.

Each is answered greedily; when the answer calls tools they are run and the model goes on, as a server would. What
counts is that the final text equals the expected one, ends trimmed: no partial marks. A question that does not fit the
context is not answered, which is wrong.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from minimind.errors import DataError
from minimind.evals.dialogues import AskedQuestion, answer_with_tools, has_room
from minimind.evals.measured import Measured, fingerprint_of
from minimind.generation.sampling import Sampling
from minimind.model import Transformer
from minimind.text.conversation import Conversation
from minimind.text.tokenizer import Tokenizer

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
    questions: Iterable[tuple[str, Mapping[str, Any]]],
    max_tokens: int = 128,
    batch_size: int = 32,
) -> ExactAnswers:
    """Ask rows `{"conversations", "answer", "kind"?, "thinking"?, "tools"?}`; see `builtin/conversations.py` for some.

    questions:  each with its place, `path:line`
    max_tokens: of each answer, reasoning and calls included
    Errors:     DataError for a row that is no question, with its place; and where there are none
    """
    rows = list(questions)
    if not rows:
        raise DataError("there are no questions to ask; expected at least one row")
    dialogues = [_dialogue(where, row) for where, row in rows]
    fitting = [dialogue for dialogue in dialogues if has_room(model, tokenizer, dialogue)]
    answer_with_tools(model, tokenizer, fitting, Sampling(temperature=0, max_tokens=max_tokens), batch_size)
    return ExactAnswers(tuple(_finished(row, dialogue) for (_, row), dialogue in zip(rows, dialogues, strict=True)))


def _dialogue(where: str, row: Mapping[str, Any]) -> AskedQuestion:
    conversation = Conversation.parse(row, where).prompt_part()
    if not isinstance(row.get("answer"), str | int | float):
        raise DataError(f'{where}: does not say what is right; expected "answer" with a text or a number')
    return AskedQuestion(list(conversation.messages), conversation.tools, bool(row.get("thinking", False)))


def _finished(row: Mapping[str, Any], dialogue: AskedQuestion) -> Answer:
    question = next((m.content for m in reversed(dialogue.messages) if m.role == "user"), "")
    return Answer(str(row.get("kind", "question")), question, str(row["answer"]), dialogue.text)
