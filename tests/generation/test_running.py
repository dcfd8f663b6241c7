"""Ids become the events of a request: text as it gets certain, marks, and an end."""

import pytest

from minimind.generation.request import Event, Request, TokenScore
from minimind.generation.running import RunningRequest
from minimind.generation.sampler import Drawn
from minimind.generation.sampling import Sampling
from minimind.text.answers import AnswerPart, AnswerStart, Delta, join
from minimind.text.tokenizer import Tokenizer


def taken(request: Request, tokenizer: Tokenizer, ids: list[int], capacity: int = 100) -> list[Event]:
    row, events = RunningRequest(0, request, tokenizer, capacity), []
    for index in ids:
        events.append(row.take(Drawn(index, 0.0), ()))
        assert row.pending == [index]
        if events[-1].finish_reason is not None:
            break
    return events


def said(events: list[Event]) -> list[Delta]:
    return [delta for event in events for delta in event.deltas]


def test_text_before_a_mark_is_told_with_it_and_a_new_text_begins(tokenizer: Tokenizer) -> None:
    mark = tokenizer.control("</think>")
    request = Request(prompt=[1], sampling=Sampling(stop=("lloX",)), answer=AnswerStart.of(tokenizer))
    hello = tokenizer.encode("hello")
    events = taken(request, tokenizer, [*hello, mark, *tokenizer.encode("X")])
    assert "".join(delta.text for delta in said(events[: len(hello) + 1])) == "hello"
    assert said(events[len(hello) :])[-2:] == [Delta("content", hidden="</think>"), Delta("content", "X")]
    assert events[-1].finish_reason is None


def test_a_stop_string_that_is_complete_wins_over_a_mark(tokenizer: Tokenizer) -> None:
    """While it is open whether one that began earlier comes, too."""
    request = Request(prompt=[1], sampling=Sampling(stop=("lo wor", "o w")), answer=AnswerStart.of(tokenizer))
    mark = tokenizer.control("</think>")
    events = taken(request, tokenizer, [*tokenizer.encode("hello w"), mark])
    assert join(said(events)).content == "hell" and events[-1].finish_reason == "stop"


@pytest.mark.parametrize(
    ("settings", "ids", "reason", "count"),
    [({"max_tokens": 3}, [50] * 9, "length", 3), ({"stop": ("e",)}, None, "stop", None), ({}, [50, 2, 50], "stop", 2)],
)
def test_a_request_ends_for_each_of_the_reasons(
    tokenizer: Tokenizer, settings: dict, ids: list[int] | None, reason: str, count: int | None
) -> None:
    request = Request(prompt=[1], sampling=Sampling(**settings), stop_ids=frozenset([2]))
    events = taken(request, tokenizer, ids or tokenizer.encode("hello"))
    assert events[-1].finish_reason == reason and count in (None, len(events))
    assert ids or "".join(event.text for event in events) == "h"


def test_a_row_holds_no_more_than_its_slot(tokenizer: Tokenizer) -> None:
    request = Request(prompt=[1] * 8, sampling=Sampling(max_tokens=1000))
    assert RunningRequest(0, request, tokenizer, 10).num_tokens == 10
    assert len(taken(request, tokenizer, [50] * 5, capacity=10)) == 2


def test_scores_of_the_prompt_come_once_and_first(tokenizer: Tokenizer) -> None:
    row = RunningRequest(0, Request(prompt=[1, 50], score_prompt=True), tokenizer, 10)
    row.prompt_scores.append(TokenScore(50, -1.0, ()))
    first, second = row.take(Drawn(60, -2.0), [TokenScore(60, -2.0, ())]), row.take(Drawn(61, 0.0), ())
    assert [score.id for score in first.scores] == [1, 50, 60] and first.scores[0].logprob is None
    assert list(second.scores) == []


CALL = '<tool_call>\n{"name": "f", "arguments": {"a": 1}}\n</tool_call>'


@pytest.mark.parametrize("stop", ["\n", "\n\n", ".", "}"])
@pytest.mark.parametrize(
    ("part", "hidden"),
    [
        ("content", "\n\n"),
        ("reasoning", "\na.\n\nb.\n</think>\n\n"),
        ("content", f"{CALL}\n{CALL}\n"),
        ("reasoning", f"a.\n</think>\n\n{CALL}\n"),
        ("call", CALL.removeprefix("<tool_call>")),
    ],
)
def test_stop_strings_cut_what_a_reader_sees_and_nothing_else(
    tokenizer: Tokenizer, part: AnswerPart, hidden: str, stop: str
) -> None:
    start = AnswerStart(AnswerStart.of(tokenizer).marks, part)
    request = Request(prompt=[1], sampling=Sampling(stop=(stop,), max_tokens=1000), answer=start)
    ids = tokenizer.encode_with_control(f"{hidden}hello{stop}there")
    message = join(said(events := taken(request, tokenizer, ids, capacity=2000)))
    assert message.content == "hello" and events[-1].finish_reason == "stop"
    assert message.reasoning_content == hidden.partition("</think>")[0].strip("\n") * int(part == "reasoning")
    assert len(message.tool_calls) == hidden.count("</tool_call>")


def test_stop_strings_cut_a_text_without_parts_wherever_they_are(tokenizer: Tokenizer) -> None:
    """As `generation.complete` does."""
    request = Request(prompt=[1], sampling=Sampling(stop=("\n",)))
    [*_, last] = taken(request, tokenizer, tokenizer.encode("\nhello"))
    assert (last.text, last.finish_reason) == ("", "stop")
