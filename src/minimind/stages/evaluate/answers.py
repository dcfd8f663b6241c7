"""The parts of `minimind evaluate` that let the model speak: answers drawn several times, and tool calls."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from minimind.data.prompts import parse_prompt
from minimind.errors import DataError
from minimind.evals.sampled_answers import OpenQuestion, SampledAnswers, sample_answers
from minimind.evals.tool_calls import PlayedTurn, ToolCalls, tool_calls
from minimind.generation.sampling import Sampling
from minimind.model import Transformer
from minimind.stages.evaluate.evaluation import Evaluation, percent
from minimind.stages.evaluate.tasks import placed_rows
from minimind.text.conversation import Conversation, Message
from minimind.text.final_answer import is_right
from minimind.text.numbers import read_alone
from minimind.text.tokenizer import Tokenizer

__all__ = ["call_tools", "draw_answers", "open_question"]


def draw_answers(
    found: Evaluation,
    model: Transformer,
    tokenizer: Tokenizer,
    sources: Sequence[str],
    *,
    samples: int,
    sampling: Sampling,
) -> None:
    """pass@k by kind of question, for k = 1, 2, 4, ... and `samples`; and some of the wrong answers."""
    questions = [open_question(where, row) for where, row in placed_rows(sources)]
    result = sample_answers(model, tokenizer, questions, sampling, samples)
    names = {f"pass@{k}": k for k in (*_powers_of_two(samples), samples)}
    for name, k in names.items():
        found.add(name, result.pass_at(k))
    kinds: list[str | None] = [*(result.kinds if len(result.kinds) > 1 else []), None]
    rows = []
    for kind in kinds:
        shares = [result.pass_at(k, kind) for k in names.values()]
        rows.append([kind or "all", len(shares[0].amounts), *map(percent, shares)])
    how = f"{samples} drawn for each at temperature {sampling.temperature:g} and top_p {sampling.top_p:g}"
    title = f"Right answers, {how}{_too_long(result.num_too_long)}"
    found.show(title, ["kind", "questions", *names], rows)
    found.show_mistakes("Some of the wrong answers", _wrong_answers(result))


def call_tools(
    found: Evaluation, model: Transformer, tokenizer: Tokenizer, sources: Sequence[str], *, max_tokens: int
) -> None:
    """Shares of the recorded calls that are made, and of the other turns in which one is made; and some mistakes."""
    result = tool_calls(model, tokenizer, placed_rows(sources), max_tokens)
    shares = {f"tool_calls, {level}": share for level, share in result.by_level.items()}
    if result.false_calls is not None:
        shares["false_calls"] = result.false_calls
    for name, share in shares.items():
        found.add(name, share)
    rows = [[name, int(sum(share.amounts)), len(share.amounts), percent(share)] for name, share in shares.items()]
    title = f"Tool calls, turn by turn{_too_long(result.num_too_long)}"
    found.show(title, ["figure", "turns", "of", "share"], rows)
    found.show_mistakes("Some of the wrong calls", _wrong_calls(result))


def open_question(where: str, row: Mapping[str, Any]) -> OpenQuestion:
    """A row, with what is right in `gt`, in `answer`, or in the last message of the assistant. Errors: DataError"""
    prompt = parse_prompt(where, row)
    last = Conversation.parse(row, where).messages[-1]
    if prompt.gt:
        expected, is_right = ", ".join(prompt.gt), _judge(prompt.gt, where)
    else:
        expected = str(row.get("answer", last.content if last.role == "assistant" else "")).strip()
        is_right = partial(_is_text, expected)
    if not expected:
        raise DataError(
            f"{where}: does not say what is right; expected gt, answer, or text in a last message of the assistant"
        )
    thinking = bool(row.get("thinking") or (last.role == "assistant" and last.reasoning_content))
    kind = str(row.get("kind") or row.get("source") or "question")
    return OpenQuestion(prompt.messages, prompt.tools, expected, is_right, thinking, kind)


def _judge(gt: Sequence[str], where: str) -> Callable[[str], bool]:
    if len(gt) > 1 and not all(map(read_alone, gt)):
        raise DataError(f"{where}: has {len(gt)} gt that are not all numbers; expected numbers, or one text")
    return lambda text: is_right(text, gt)


def _is_text(expected: str, text: str) -> bool:
    return text.strip() == expected


def _powers_of_two(limit: int) -> list[int]:
    return [2**power for power in range(limit.bit_length())]


def _too_long(number: int) -> str:
    return f"; {number:,} that do not fit the context count as wrong" if number else ""


def _wrong_answers(result: SampledAnswers) -> Iterator[tuple[str, str, str, str]]:
    """The first answer to each question where that is wrong."""
    for question, texts in zip(result.questions, result.texts, strict=True):
        if texts and not question.is_right(texts[0]):
            yield question.kind, question.text, question.expected, texts[0]


def _wrong_calls(result: ToolCalls) -> Iterator[tuple[str, str, str, str]]:
    for turn in result.turns:
        if turn.fits and (problem := _problem(turn)):
            yield problem, turn.before[-1].content, _said(turn.recorded), _said(turn.got)


def _problem(turn: PlayedTurn) -> str:
    """What is wrong with an answer, or nothing."""
    if not turn.recorded.tool_calls:
        return "false call" if turn.tries_to_call else ""
    if not turn.is_well_formed:
        return "broken call" if turn.tries_to_call else "no call"
    return "" if turn.is_right else "other arguments" if turn.is_named else "other tool"


def _said(message: Message) -> str:
    """Its calls, and its words where there are none."""
    return " ".join(call.to_json() for call in message.tool_calls) or message.content
