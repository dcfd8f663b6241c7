"""Tools that an answer calls are run, random numbers belong to a dialogue, and a full context ends it."""

import pytest
from tests.evals.lessons import CALCULATOR

from minimind.errors import UserError
from minimind.evals.dialogues import AskedQuestion, _run_tools, answer_once, answer_with_tools, has_room
from minimind.generation.sampling import Sampling
from minimind.model import Transformer
from minimind.text.conversation import Message
from minimind.text.tokenizer import Tokenizer
from minimind.tools.builtin import TOOLS

GREEDY = Sampling(temperature=0, max_tokens=64)
WILD = Sampling(temperature=3.0, top_p=1.0, max_tokens=12)


def asked(text: str, with_tools: bool = False) -> AskedQuestion:
    return AskedQuestion([Message("user", text)], (CALCULATOR.schema,) if with_tools else ())


def test_tools_that_are_called_are_run_and_the_answer_goes_on(taught: Transformer, tokenizer: Tokenizer) -> None:
    dialogue = asked("2+3", with_tools=True)
    answer_with_tools(taught, tokenizer, [dialogue], GREEDY)
    assert [message.role for message in dialogue.messages] == ["user", "assistant", "tool"]
    assert dialogue.messages[-1].content == '{"result": 5}' and dialogue.text == "2+3 = 5"


def test_a_tool_that_is_not_offered_is_not_run(taught: Transformer, tokenizer: Tokenizer) -> None:
    dialogue = asked("2+3", with_tools=True)
    answer_once(taught, tokenizer, [dialogue], GREEDY)
    dialogue.tools = (TOOLS["count_text"].schema,)
    _run_tools(dialogue)
    assert dialogue.messages[-1].content.startswith('{"error": "there is no tool')


def test_an_answer_that_still_calls_says_nothing_to_the_user(taught: Transformer, tokenizer: Tokenizer) -> None:
    dialogue = asked("2+3", with_tools=True)
    answer_once(taught, tokenizer, [dialogue], GREEDY)
    assert dialogue.answer.tool_calls and dialogue.text == "" and len(dialogue.messages) == 1


def test_what_is_drawn_depends_on_the_stream_and_not_on_the_batch(taught: Transformer, tokenizer: Tokenizer) -> None:
    def texts(streams: list[int], batch_size: int) -> list[str]:
        dialogues = [asked("hi" * (n % 3 + 1)) for n in streams]
        answer_once(taught, tokenizer, dialogues, WILD, streams=streams, batch_size=batch_size)
        return [dialogue.text for dialogue in dialogues]

    together = texts([0, 1, 2, 3], 4)
    assert together == texts([0, 1, 2, 3], 1) and together[::-1] == texts([3, 2, 1, 0], 3)
    assert len(set(together)) == 4


def test_a_dialogue_without_room_is_told_and_cannot_be_asked(taught: Transformer, tokenizer: Tokenizer) -> None:
    long = asked("hi " * 700)
    assert has_room(taught, tokenizer, asked("hi")) and not has_room(taught, tokenizer, long)
    with pytest.raises(UserError, match="context"):
        answer_with_tools(taught, tokenizer, [long], GREEDY)
