"""A conversation: what the model is shown, the tools it may run, and what happens when the context is full."""

import io
import json
from dataclasses import replace

import pytest
import torch
from tests.tiny import SHAPE, TOKENIZER

from minimind.errors import UserError
from minimind.generation.live_forward import LiveForward
from minimind.generation.request import Request
from minimind.generation.sampling import Sampling
from minimind.model import Transformer
from minimind.stages.chat.dialogue import Dialogue
from minimind.stages.chat.local_answers import LocalAnswerer
from minimind.terminal.screen import Screen
from minimind.text.conversation import Message, render_prompt
from minimind.tools.builtin import TOOLS

GREEDY = Sampling(temperature=0, max_tokens=200)
CALL = '<tool_call>\n{"name": "calculate_math", "arguments": {"expression": "2+3"}}\n</tool_call>'


class Scripted(Transformer):
    """A model that gives scripted answers one after another, and remembers the prompts it was shown."""

    def __init__(self, *answers: str, context: int = 2000, interrupt_at: int = -1) -> None:
        super().__init__(replace(SHAPE, max_position_embeddings=context))
        self.script = TOKENIZER.encode_with_control("".join(f"{answer}<|im_end|>" for answer in answers))
        self.prompts: list[list[int]] = []
        self.place = 0
        self.interrupt_at = interrupt_at

    def logits(self, states: torch.Tensor) -> torch.Tensor:
        if self.place == self.interrupt_at:
            self.interrupt_at = -1
            raise KeyboardInterrupt
        scores = torch.zeros(len(states), self.config.vocab_size)
        scores[:, self.script[self.place]] = 50.0
        self.place += 1
        return scores


def dialogue(model: Scripted, sampling: Sampling = GREEDY, **options: object) -> tuple[Dialogue, io.StringIO]:
    file = io.StringIO()
    answerer = LocalAnswerer(model, TOKENIZER, sampling)
    engine = answerer.engine
    engine._forward, submit = LiveForward(model, engine.slots), engine.submit

    def note(request: Request) -> int:
        model.prompts.append(list(request.prompt))
        return submit(request)

    engine.submit = note  # type: ignore[method-assign]
    return Dialogue(answerer=answerer, screen=Screen(file), **options), file


def test_each_answer_is_shown_and_remembered() -> None:
    model = Scripted("hello", "你好")
    talk, file = dialogue(model, system="Be brief.")
    talk.ask("one")
    talk.ask("two")
    assert file.getvalue() == "hello\n你好\n"
    said = [Message("system", "Be brief."), *talk.messages[:3]]
    assert model.prompts[1] == render_prompt(said, (), TOKENIZER)
    assert [message.content for message in talk.messages] == ["one", "hello", "two", "你好"]


def test_a_tool_is_run_and_the_model_reads_its_result() -> None:
    model = Scripted(f"let me see\n{CALL}", "it is 5")
    talk, file = dialogue(model, tools={"calculate_math": TOOLS["calculate_math"]})
    talk.ask("2+3?")
    assert file.getvalue() == 'let me see\n-> calculate_math(expression="2+3") = 5\nit is 5\n'
    assert talk.messages[2] == Message("tool", '{"result": 5}')
    assert model.prompts[1] == render_prompt(talk.messages[:3], [TOOLS["calculate_math"].schema], TOKENIZER)


def test_a_tool_that_is_not_offered_is_not_run() -> None:
    talk, file = dialogue(Scripted(CALL, "sorry"), tools={"count_text": TOOLS["count_text"]})
    talk.ask("2+3?")
    assert "= error: there is no tool 'calculate_math'; there are count_text" in file.getvalue()
    assert "result" not in talk.messages[2].content


def test_calls_without_end_are_ended_with_a_notice() -> None:
    talk, file = dialogue(Scripted(*[CALL] * 3, context=4000), tools=dict(TOOLS), max_rounds=3)
    talk.ask("2+3?")
    assert "stopped after 3 rounds of tool calls" in file.getvalue()


def test_thinking_is_asked_for_and_remembered() -> None:
    model = Scripted("two\n</think>\n\nhello")
    talk, file = dialogue(model, thinking=True)
    talk.ask("hi")
    assert model.prompts[0] == render_prompt(talk.messages[:1], (), TOKENIZER, thinking=True)
    assert talk.messages[1] == Message("assistant", "hello", "two")
    assert file.getvalue() == "thinking\n  │ two\nhello\n"


def test_asking_again_replaces_the_answer_and_draws_other_numbers() -> None:
    talk, _ = dialogue(Scripted("hello", "你好"))
    assert not talk.retry()
    talk.ask("one")
    assert talk.retry()
    assert [message.content for message in talk.messages] == ["one", "你好"] and talk.turns == 2


def test_the_oldest_turns_give_way_with_a_notice() -> None:
    model = Scripted(*["hello"] * 12, context=160)
    talk, file = dialogue(model, system="Be brief.", sampling=Sampling(temperature=0, max_tokens=20))
    for number in range(12):
        talk.ask(f"question {number}")
    assert "the context of 160 tokens is full: the model no longer sees the oldest turn" in file.getvalue()
    assert len(talk.messages) == 24 and 0 < talk.first < 22
    shown = [Message("system", "Be brief."), *talk.messages[talk.first : 23]]
    assert model.prompts[-1] == render_prompt(shown, (), TOKENIZER)
    assert all(len(prompt) + 20 <= 160 for prompt in model.prompts)


def test_a_question_that_does_not_fit_is_refused_and_forgotten() -> None:
    talk, _ = dialogue(Scripted("hello", "hello", context=100))
    talk.ask("one")
    with pytest.raises(UserError, match=r"this turn has \d+ tokens .* context is 100; shorten it"):
        talk.ask("long " * 100)
    talk.ask("two")
    assert [message.content for message in talk.messages] == ["one", "hello", "two", "hello"]


def test_an_interrupt_stops_the_answer_and_keeps_what_was_said() -> None:
    talk, file = dialogue(Scripted("hello there", interrupt_at=4))
    talk.ask("hi")
    said = TOKENIZER.decode(TOKENIZER.encode("hello there")[:4])
    assert file.getvalue() == f"{said}\n(stopped)\n"
    assert talk.messages[-1] == Message("assistant", said)


def test_an_answer_cut_short_says_why() -> None:
    talk, file = dialogue(Scripted("hello there, world"), sampling=Sampling(temperature=0, max_tokens=3))
    talk.ask("hi")
    assert "(cut after 3 tokens by --sampling.max_tokens)" in file.getvalue()
    talk, file = dialogue(Scripted("hello " * 100, context=60))
    talk.ask("hi")
    assert "by the end of the context)" in file.getvalue()


def test_a_call_cut_short_is_not_run() -> None:
    sampling = Sampling(temperature=0, max_tokens=len(TOKENIZER.encode_with_control(CALL)) + 1)
    talk, file = dialogue(Scripted(CALL + " and more"), tools=dict(TOOLS), sampling=sampling)
    talk.ask("hi")
    assert "->" not in file.getvalue() and "cut after" in file.getvalue()


def test_a_stop_string_ends_the_answer() -> None:
    talk, file = dialogue(Scripted("hello there, world"), sampling=Sampling(temperature=0, stop=("re, w",)))
    talk.ask("hi")
    assert file.getvalue() == "hello the\n" and talk.messages[-1].content == "hello the"


def test_silence_is_noticed() -> None:
    talk, file = dialogue(Scripted(""))
    talk.ask("hi")
    assert "the answer is empty" in file.getvalue()


def test_a_conversation_is_a_row_of_training_data() -> None:
    talk, _ = dialogue(Scripted(CALL, "5"), system="Be brief.", tools={"calculate_math": TOOLS["calculate_math"]})
    talk.ask("2+3?")
    row = json.loads(json.dumps(talk.conversation().to_dict()))
    assert [message["role"] for message in row["messages"]] == ["system", "user", "assistant", "tool", "assistant"]
    assert row["tools"][0]["function"]["name"] == "calculate_math"
