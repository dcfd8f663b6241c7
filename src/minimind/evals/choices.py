"""Multiple choice, asked in two ways: which letter is likeliest after the listed answers, and which answer by itself.

    letter        context: question, "A. ...", "B. ...", "Answer:"     continuations: " A", " B", ...
    continuation  context: question, "Answer:"                         continuations: the answers themselves

Answers differ in length, and a longer text is less likely whatever it says: so continuations are compared by their
sum, by token and by byte. To read it: guessing is 1/4 for four answers. A small model cannot use letters at all and
stays at chance there, while continuations may already be above it. Chosen is the likeliest, the first of equals.
Rows may be shaped like C-Eval, CMMLU, MMLU(-Pro), ARC, OpenBookQA, HellaSwag, PIQA or WinoGrande. Source: the two ways
are those of Hendrycks et al. 2021, arXiv:2009.03300, and Brown et al. 2020, arXiv:2005.14165, section 2.4.
"""

import re
import string
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from minimind.errors import DataError
from minimind.evals.log_likelihood import LogLikelihood, encode_request, log_likelihoods
from minimind.evals.measured import Measured, fingerprint_of
from minimind.model import Transformer
from minimind.text.tokenizer import Tokenizer

__all__ = ["Choices", "Question", "multiple_choice", "parse_question"]

SUBJECTS = ("subject", "category", "activity_label", "source")
# Columns of a question, and of its answers: in a list, or each in one of its own.
QUESTIONS = ("question", "Question", "question_stem", "goal", "sentence", "ctx")
LISTED = ("choices", "endings", "options")
NUMBERED = (("sol1", "sol2"), ("option1", "option2"))
CHINESE = re.compile("[\u4e00-\u9fff]")


@dataclass(frozen=True)
class Question:
    """A question with its answers.

    answer:     the index of the right one
    is_opening: the text is the beginning of what the answers continue, not a question
    """

    subject: str
    text: str
    choices: tuple[str, ...]
    answer: int
    is_opening: bool = False

    def context(self) -> str:
        """What stands before an answer that is scored by itself."""
        if self.is_opening:
            return self.text
        return f"问题：{self.text}\n答案：" if self._is_chinese else f"Question: {self.text}\nAnswer:"

    def context_with_choices(self) -> str:
        """What stands before a letter."""
        lines = [f"{letter}. {choice}" for letter, choice in zip(string.ascii_uppercase, self.choices, strict=False)]
        return "\n".join([self.text, *lines, "答案：" if self._is_chinese else "Answer:"])

    @property
    def _is_chinese(self) -> bool:
        return bool(CHINESE.search(self.text))


@dataclass(frozen=True)
class Choices:
    """The result.

    by_method:   "letter", "continuation, sum", "continuation, by token", "continuation, by byte" -> the share right
    by_subject:  the same of each subject, in alphabetical order
    chance:      what guessing reaches
    """

    by_method: Mapping[str, Measured]
    by_subject: Mapping[str, Mapping[str, Measured]]
    chance: float


def multiple_choice(model: Transformer, tokenizer: Tokenizer, rows: Iterable[tuple[str, Mapping[str, Any]]]) -> Choices:
    """Ask rows, each with the `path:line` it came from. Errors: DataError naming the row"""
    questions = [parse_question(where, row) for where, row in rows]
    if not questions:
        raise DataError("there are no questions to ask; expected at least one row")
    letters = [
        (question.context_with_choices(), f" {letter}")
        for question in questions
        for letter in string.ascii_uppercase[: len(question.choices)]
    ]
    answers = [(question.context(), f" {choice}") for question in questions for choice in question.choices]
    requests = [encode_request(tokenizer, *pair) for pair in letters + answers]
    scores = log_likelihoods(model, requests)
    by_letter = _by_question(scores[: len(letters)], questions)
    by_answer = _by_question(scores[len(letters) :], questions)
    right = _right(questions, by_letter, by_answer)
    subjects = {question.subject for question in questions}
    return Choices(
        _shares(questions, right),
        {subject: _shares(questions, right, subject) for subject in sorted(subjects)},
        sum(1 / len(question.choices) for question in questions) / len(questions),
    )


def parse_question(where: str, row: Mapping[str, Any]) -> Question:
    """A row of one of the public shapes. Errors: DataError naming the row and the column"""
    subject = next((str(row[name]) for name in SUBJECTS if row.get(name)), "all")
    text = next((row[name] for name in QUESTIONS if row.get(name)), None)
    choices, labels = _choices(row)
    if not isinstance(text, str) or not text:
        raise DataError(f"{where}: question is {text!r}; expected a text in question, or in ctx")
    if not 2 <= len(choices) <= len(string.ascii_uppercase) or not all(isinstance(c, str) and c for c in choices):
        raise DataError(
            f"{where}: choices are {choices!r:.80}; expected 2 to 26 texts in choices, endings or A, B, ..."
        )
    given = next((row[name] for name in ("answer", "Answer", "answerKey", "label") if row.get(name) is not None), None)
    name = str(given).strip()
    if name not in labels and not (name.isdecimal() and int(name) < len(choices)):
        raise DataError(f"{where}: the answer is {given!r}; expected one of {', '.join(labels)}, or a number from 0")
    answer = labels.index(name) if name in labels else int(name)
    return Question(subject, text.strip(), tuple(choices), answer, is_opening="ctx" in row)


def _choices(row: Mapping[str, Any]) -> tuple[Sequence[Any], list[str]]:
    """The answers, and what each is called."""
    for names in NUMBERED:
        if all(name in row for name in names):
            return [row[name] for name in names], [name[-1] for name in names] if names[0] == "option1" else []
    found = next((row[name] for name in LISTED if row.get(name)), None)
    if isinstance(found, Mapping):
        return list(found.get("text") or ()), [str(label) for label in found.get("label") or ()]
    if isinstance(found, Sequence) and not isinstance(found, str):
        return list(found), list(string.ascii_uppercase[: len(found)])
    letters = [letter for letter in string.ascii_uppercase if letter in row]
    return [row[letter] for letter in letters], letters


def _by_question(scores: Sequence[LogLikelihood], questions: Sequence[Question]) -> list[Sequence[LogLikelihood]]:
    parts, start = [], 0
    for question in questions:
        parts.append(scores[start : start + len(question.choices)])
        start += len(question.choices)
    return parts


def _right(
    questions: Sequence[Question],
    by_letter: Sequence[Sequence[LogLikelihood]],
    by_answer: Sequence[Sequence[LogLikelihood]],
) -> dict[str, list[bool]]:
    """Method -> whether each question is answered rightly."""
    found: dict[str, list[bool]] = {}
    for question, letters, answers in zip(questions, by_letter, by_answer, strict=True):
        sizes = [len(choice.encode()) for choice in question.choices]
        values = {
            "letter": [score.nats for score in letters],
            "continuation, sum": [score.nats for score in answers],
            "continuation, by token": [score.nats / score.tokens for score in answers],
            "continuation, by byte": [score.nats / size for score, size in zip(answers, sizes, strict=True)],
        }
        for method, scores in values.items():
            found.setdefault(method, []).append(scores.index(max(scores)) == question.answer)
    return found


def _shares(
    questions: Sequence[Question], right: Mapping[str, list[bool]], subject: str | None = None
) -> dict[str, Measured]:
    chosen = [number for number, question in enumerate(questions) if subject in (None, question.subject)]
    mark = fingerprint_of("\n".join((questions[n].text, *questions[n].choices)) for n in chosen)
    return {method: Measured.share((marks[n] for n in chosen), mark) for method, marks in right.items()}
