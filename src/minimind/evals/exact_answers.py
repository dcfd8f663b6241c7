"""Questions with one right answer, asked the way a user asks them.

Each prompt is rendered, answered greedily, parsed; when the answer calls tools they are run and the model goes on, as a
server would. What counts is that the final text equals the expected one, ends trimmed: no partial marks.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from minimind.conversation import Conversation, Message, parse_answer_ids, render_prompt
from minimind.errors import DataError
from minimind.evals.measured import Measured, fingerprint_of
from minimind.generation import Sampling, complete
from minimind.model import Transformer
from minimind.tokenizer import Tokenizer
from minimind.tools import run_tool

__all__ = ["Answer", "ExactAnswers", "exact_answers"]

# Answers in a row that may call tools; whoever still calls then has given no answer.
MAX_ROUNDS = 4


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


@dataclass
class _Dialogue:
    """A question under way."""

    messages: list[Message]
    tools: tuple[Mapping[str, Any], ...]
    row: Mapping[str, Any]
    answer: Message = field(default_factory=lambda: Message("assistant"))

    @property
    def is_thinking(self) -> bool:
        return bool(self.row.get("thinking", False))


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
    dialogues = [_dialogue(row, number) for number, row in enumerate(questions, start=1)]
    if not dialogues:
        raise DataError("there are no questions to ask; expected at least one row")
    pending = dialogues
    for _ in range(MAX_ROUNDS):
        _answer(model, tokenizer, pending, max_tokens, batch_size)
        pending = [dialogue for dialogue in pending if dialogue.answer.tool_calls]
        for dialogue in pending:
            _run_tools(dialogue)
        # Long calls can fill the context, and whoever has no room left to answer has not answered.
        context = model.config.max_position_embeddings
        pending = [dialogue for dialogue in pending if len(_prompt(dialogue, tokenizer)) < context]
    return ExactAnswers(tuple(_finished(dialogue) for dialogue in dialogues))


def _dialogue(row: Mapping[str, Any], number: int) -> _Dialogue:
    conversation = Conversation.parse(row, f"question {number}")
    return _Dialogue(list(conversation.messages), conversation.tools, row)


def _prompt(dialogue: _Dialogue, tokenizer: Tokenizer) -> list[int]:
    return render_prompt(dialogue.messages, dialogue.tools, tokenizer, dialogue.is_thinking)


def _answer(
    model: Transformer, tokenizer: Tokenizer, dialogues: list[_Dialogue], max_tokens: int, batch_size: int
) -> None:
    """Let the model answer all dialogues, those with prompts of like length together."""
    prompts = [_prompt(dialogue, tokenizer) for dialogue in dialogues]
    order = sorted(range(len(dialogues)), key=lambda index: len(prompts[index]))
    greedy = Sampling(temperature=0, max_tokens=max_tokens)
    completions = complete(model, tokenizer, [prompts[index] for index in order], greedy, batch_size=batch_size)
    for index, completion in zip(order, completions, strict=True):
        dialogue = dialogues[index]
        dialogue.answer = parse_answer_ids(completion.ids, tokenizer, dialogue.is_thinking)


def _run_tools(dialogue: _Dialogue) -> None:
    results = [Message("tool", run_tool(call.name, call.arguments)) for call in dialogue.answer.tool_calls]
    dialogue.messages += [dialogue.answer, *results]


def _finished(dialogue: _Dialogue) -> Answer:
    question = next(m.content for m in reversed(dialogue.messages) if m.role == "user")
    # An answer that still calls tools says nothing to the user.
    got = "" if dialogue.answer.tool_calls else dialogue.answer.content
    return Answer(str(dialogue.row.get("kind", "question")), question, str(dialogue.row["answer"]), got)
