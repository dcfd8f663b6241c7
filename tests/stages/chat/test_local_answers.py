"""A model's ids become pieces of an answer, of which tags are part only as control tokens."""

from dataclasses import replace

import pytest
import torch
from tests.tiny import SHAPE, TOKENIZER, random_model

from minimind.errors import UserError
from minimind.generation.live_forward import LiveForward
from minimind.generation.sampling import Sampling
from minimind.model import Transformer
from minimind.stages.chat.adapters import Adapters
from minimind.stages.chat.dialogue import AnswerEnding
from minimind.stages.chat.local_answers import LocalAnswerer
from minimind.text.answers import Delta, join
from minimind.text.conversation import Conversation, Message, parse_answer_ids

QUESTION = Conversation((Message("user", "hello"),))
WITH_TOOLS = replace(QUESTION, tools=({"type": "function", "function": {"name": "f"}},))
CALL = '<tool_call>\n{"name": "f", "arguments": {}}\n</tool_call>'


class Scripted(Transformer):
    """Says its ids one after another, then the end."""

    def __init__(self, ids: list[int]) -> None:
        super().__init__(replace(SHAPE, max_position_embeddings=1024))
        self.script = [*ids, TOKENIZER.eos_id]

    def logits(self, states: torch.Tensor) -> torch.Tensor:
        scores = torch.zeros(len(states), self.config.vocab_size)
        scores[:, self.script.pop(0)] = 50.0
        return scores


def answer(
    ids: list[int], *, thinking: bool = False, max_tokens: int = 200, stop: tuple[str, ...] = ()
) -> tuple[list[Delta], AnswerEnding]:
    said: list[Delta] = []
    sampling = Sampling(temperature=0, max_tokens=max_tokens, stop=stop)
    answerer = LocalAnswerer(Scripted(ids), TOKENIZER, sampling)
    answerer.engine._forward = LiveForward(answerer.model, answerer.engine.slots)
    return said, answerer.answer(WITH_TOOLS, 1, thinking=thinking, say=said.append)


@pytest.mark.parametrize(
    "text", ["hello\n\n你好\n", f"let me see\n{CALL}\n{CALL}", f"hello {CALL[:30]}", "<think>\na\n</think>\n\nb"]
)
def test_the_pieces_make_the_message_that_the_ids_make(text: str) -> None:
    ids = TOKENIZER.encode_with_control(text)
    said, ending = answer(ids)
    assert join(said) == parse_answer_ids(ids, TOKENIZER) and ending == (True, "")


def test_thinking_comes_before_the_answer() -> None:
    said, _ = answer(TOKENIZER.encode_with_control("two\n</think>\n\nhello"), thinking=True)
    assert join(said) == Message("assistant", "hello", "two") and said[0].part == "reasoning"


def test_tags_that_are_only_spelled_stay_text() -> None:
    said, _ = answer(TOKENIZER.encode("a <think> b </think>"))
    assert join(said).content == "a <think> b </think>"


def test_nothing_behind_a_stop_string_is_said() -> None:
    said, ending = answer(TOKENIZER.encode("hello there, world"), stop=("re, w",))
    assert join(said).content == "hello the" and ending.is_whole


def test_stop_strings_cut_what_is_read_and_not_what_is_thought() -> None:
    ids = TOKENIZER.encode_with_control("one\ntwo\n</think>\n\nhello\nthere")
    said, ending = answer(ids, thinking=True, stop=("\n",))
    assert join(said) == Message("assistant", "hello", "one\ntwo") and ending.is_whole


def test_an_answer_cut_short_is_not_whole_and_keeps_what_was_held_back() -> None:
    said, ending = answer(TOKENIZER.encode_with_control(f"{CALL[:25]} hello"), max_tokens=9)
    assert not ending.is_whole and ending.note == "cut after 9 tokens by --sampling.max_tokens"
    assert join(said).content.startswith("<tool_call>\n")


def test_another_turn_has_another_answer_and_the_same_turn_the_same() -> None:
    torch.manual_seed(0)
    answerer = LocalAnswerer(Transformer(SHAPE), TOKENIZER, Sampling(temperature=1, max_tokens=8))
    said: list[list[Delta]] = [[], [], []]
    for place, turn in enumerate((1, 2, 1)):
        answerer.answer(QUESTION, turn, thinking=False, say=said[place].append)
    assert join(said[0]) == join(said[2]) != join(said[1])


def test_a_full_context_is_told_and_then_refused() -> None:
    answerer = LocalAnswerer(Transformer(SHAPE), TOKENIZER, Sampling(max_tokens=64))
    longer = Conversation((Message("user", "hello " * 120),))
    longest = Conversation((Message("user", "hello " * 400),))
    assert answerer.shortage(QUESTION, thinking=False) == ""
    assert answerer.shortage(longer, thinking=False) == "the context of 256 tokens is full"
    with pytest.raises(UserError, match=r"this turn has [\d,]+ tokens .* context is 256; shorten it"):
        answerer.answer(longest, 1, thinking=False, say=lambda _: None)


def test_what_was_said_before_is_not_computed_again_until_the_weights_change() -> None:
    model = Transformer(SHAPE)
    answerer = LocalAnswerer(model, TOKENIZER, Sampling(temperature=0, max_tokens=4))
    answerer.answer(QUESTION, 1, thinking=False, say=lambda _: None)
    engine, computed = answerer.engine, answerer.engine.counters.num_computed
    answerer.answer(QUESTION, 2, thinking=False, say=lambda _: None)
    assert engine.counters.num_computed - computed <= 4 and answerer.engine is engine
    answerer.adapters = Adapters(model, TOKENIZER, [])
    assert answerer.engine is not engine


def test_an_answer_that_is_interrupted_keeps_what_was_held_back_and_the_next_one_is_well() -> None:
    def say(delta: Delta) -> None:
        said.append(delta)
        raise KeyboardInterrupt

    said: list[Delta] = []
    answerer = LocalAnswerer(random_model(), TOKENIZER, Sampling(temperature=0, max_tokens=8))
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            answerer.answer(QUESTION, 1, thinking=False, say=say)
    assert answerer.engine.is_idle
    answerer.answer(QUESTION, 1, thinking=False, say=said.append)
    assert len(said) > 2
