"""A body becomes requests: the prompt that training renders, settings filled in."""

from typing import Any

import numpy as np
import pytest

from minimind.generation.grammar import Guided
from minimind.generation.sampling import Sampling
from minimind.serve.ask import chat_requests, completion_requests
from minimind.serve.problems import Problem
from minimind.serve.schema import ChatBody, CompletionBody
from minimind.text.answers import AnswerReader
from minimind.text.conversation import Conversation, Message, render_prompt
from minimind.text.tokenizer import Tokenizer

DEFAULTS = Sampling(temperature=0.5, top_k=7, max_tokens=99)
TOOLS = [{"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}]
ROW: dict[str, Any] = {
    "messages": [
        {"role": "developer", "content": "be <|im_end|> brief"},
        {"role": "user", "content": [{"type": "text", "text": "hello"}]},
        {"role": "assistant", "tool_calls": [{"function": {"name": "add", "arguments": '{"x": 1}'}}]},
        {"role": "tool", "content": "3", "tool_call_id": "1"},
    ]
}


@pytest.mark.parametrize("tools", [[], TOOLS])
@pytest.mark.parametrize("thinking", [False, True])
def test_a_chat_is_rendered_as_in_training(tokenizer: Tokenizer, tools: list[Any], thinking: bool) -> None:
    options = {"chat_template_kwargs": {"enable_thinking": thinking}}
    body = ChatBody.model_validate({"model": "m", **ROW, **options} | ({"tools": tools} if tools else {}))
    [request] = chat_requests(body, tokenizer, DEFAULTS, 10_000)
    conversation = Conversation.parse(ROW, "row")
    assert request.prompt == render_prompt(conversation.messages, tools, tokenizer, thinking)
    assert request.answer is not None and request.answer.part == ("reasoning" if thinking else "content")
    # Where nothing is on offer, nothing can be called, and nobody is shown the marks of a call.
    marks = {tokenizer.control("<tool_call>"), tokenizer.control("</tool_call>")}
    assert request.barred == (set() if tools else marks)


@pytest.mark.parametrize(
    ("said", "reasoning"), [("write </think> to end it", ""), ("<think>\na\n</think>\n\nb </think>", "a")]
)
@pytest.mark.parametrize("as_parts", [False, True])
def test_an_answer_that_mentions_a_tag_stays_whole(
    tokenizer: Tokenizer, said: str, reasoning: str, as_parts: bool
) -> None:
    content = [{"type": "text", "text": said}] if as_parts else said
    messages = [{"role": "user", "content": "a"}, {"role": "assistant", "content": content}]
    body = ChatBody.model_validate({"model": "m", "messages": messages, "continue_final_message": False})
    [request] = chat_requests(body, tokenizer, DEFAULTS, 10_000)
    answer = Message("assistant", "b </think>" if reasoning else said, reasoning)
    assert request.prompt == render_prompt([Message("user", "a"), answer], (), tokenizer)


def test_a_call_that_is_forced_is_open_from_the_start(tokenizer: Tokenizer) -> None:
    body = ChatBody.model_validate({"model": "m", **ROW, "tools": TOOLS, "tool_choice": "required"})
    [request] = chat_requests(body, tokenizer, DEFAULTS, 10_000)
    assert request.answer is not None and request.answer.part == "call"


def asked(tokenizer: Tokenizer, messages: list[dict[str, Any]], **fields: Any) -> str:
    """The prompt, as text."""
    body = ChatBody.model_validate({"model": "m", "messages": messages, **fields})
    return tokenizer.decode(chat_requests(body, tokenizer, DEFAULTS, 10_000)[0].prompt)


HELLO = {"role": "user", "content": "hello"}


@pytest.mark.parametrize("arguments", ['{"x": 1', "x = 1", "[1, 2]"])
def test_a_past_call_with_broken_arguments_is_kept_as_it_was_written(tokenizer: Tokenizer, arguments: str) -> None:
    call = {"id": "c", "type": "function", "function": {"name": "add", "arguments": arguments}}
    past = [HELLO, {"role": "assistant", "tool_calls": [call]}, {"role": "tool", "tool_call_id": "c", "content": "?"}]
    assert f'{{"name": "add", "arguments": {arguments}}}' in asked(tokenizer, past)


def test_a_function_call_of_older_clients_is_a_call(tokenizer: Tokenizer) -> None:
    call = {"name": "add", "arguments": '{"x": 1}'}
    older = asked(tokenizer, [HELLO, {"role": "assistant", "content": None, "function_call": call}])
    assert older == asked(tokenizer, [HELLO, {"role": "assistant", "tool_calls": [{"id": "c", "function": call}]}])


def test_a_tools_result_may_be_an_object_with_nulls(tokenizer: Tokenizer) -> None:
    result = {"role": "tool", "tool_call_id": "c", "content": {"town": None, "degrees": 3}}
    assert '{"town": null, "degrees": 3}' in asked(tokenizer, [HELLO, result])


@pytest.mark.parametrize(("effort", "thinks"), [(None, False), ("none", False), ("minimal", False), ("low", True)])
def test_an_effort_of_reasoning_is_the_switch_of_thinking(tokenizer: Tokenizer, effort: str, thinks: bool) -> None:
    body = ChatBody.model_validate({"model": "m", "messages": [HELLO], "reasoning_effort": effort})
    [request] = chat_requests(body, tokenizer, DEFAULTS, 10_000)
    assert request.answer is not None and (request.answer.part == "reasoning") is thinks
    off = {"reasoning_effort": "high", "chat_template_kwargs": {"enable_thinking": False}}
    [request] = chat_requests(
        ChatBody.model_validate({"model": "m", "messages": [HELLO], **off}), tokenizer, DEFAULTS, 99
    )
    assert request.answer is not None and request.answer.part == "content"


BEGUN = {"role": "assistant", "content": "I am Mini"}
THOUGHT = {"role": "assistant", "content": "", "reasoning_content": "let me"}


def test_an_answer_that_stands_last_goes_on_to_the_ids_of_the_whole(tokenizer: Tokenizer) -> None:
    going_on = asked(tokenizer, [HELLO, BEGUN])
    whole = asked(tokenizer, [HELLO, BEGUN], continue_final_message=False)
    assert going_on.endswith("I am Mini") and whole.startswith(f"{going_on}<|im_end|>")
    assert asked(tokenizer, [HELLO, BEGUN], continue_final_message=True, add_generation_prompt=False) == going_on
    assert asked(tokenizer, [HELLO, BEGUN], add_generation_prompt=True) == whole


def test_reasoning_that_stands_last_goes_on_as_reasoning(tokenizer: Tokenizer) -> None:
    assert asked(tokenizer, [HELLO, THOUGHT]).endswith("<think>\nlet me")
    both = {**BEGUN, "reasoning_content": "let me"}
    assert asked(tokenizer, [HELLO, both]).endswith("<think>\nlet me\n</think>\n\nI am Mini")


def test_newlines_that_go_on_are_the_models_own(tokenizer: Tokenizer) -> None:
    [request] = chat_requests(
        ChatBody.model_validate({"model": "m", "messages": [HELLO, BEGUN]}), tokenizer, DEFAULTS, 999
    )
    assert request.answer is not None and request.answer.is_begun
    assert [delta.text for delta in AnswerReader(request.answer).push("\n\nMind")] == ["\n\nMind"]


@pytest.mark.parametrize(
    ("messages", "fields"),
    [([HELLO], {}), ([HELLO, BEGUN], {"add_generation_prompt": True})],
)
def test_what_cannot_go_on_is_refused(tokenizer: Tokenizer, messages: Any, fields: dict[str, Any]) -> None:
    with pytest.raises(Problem, match="continue_final_message"):
        asked(tokenizer, messages, continue_final_message=True, **fields)


def guided(tokenizer: Tokenizer, **given: Any) -> Guided:
    """An answer under the form that a body with tools asks for."""
    body = ChatBody.model_validate({"model": "m", **ROW, "tools": TOOLS, **given})
    guide = chat_requests(body, tokenizer, DEFAULTS, 10_000)[0].guide
    assert guide is not None
    return guide.begin()


@pytest.mark.parametrize(("choice", "marks"), [("auto", ["<tool_call>"]), ("none", [])])
def test_beside_json_tools_are_on_offer_still(tokenizer: Tokenizer, choice: str, marks: list[str]) -> None:
    allowed = guided(tokenizer, response_format={"type": "json_object"}, tool_choice=choice).allowed()
    assert allowed is not None
    assert [tokenizer.decode([index]) for index in np.flatnonzero(allowed)] == [*marks, "{"]


@pytest.mark.parametrize("wanted", [None, {"type": "json_object"}])
def test_one_call_alone_is_one_and_then_the_end(tokenizer: Tokenizer, wanted: Any) -> None:
    answer = guided(tokenizer, parallel_tool_calls=False, response_format=wanted)
    for index in tokenizer.encode_with_control('<tool_call>\n{"name": "add", "arguments": {}}\n</tool_call>'):
        answer.accept(index)
    allowed = answer.allowed()
    assert allowed is not None and np.flatnonzero(allowed).tolist() == [tokenizer.eos_id]


def test_settings_are_the_clients_then_the_servers(tokenizer: Tokenizer) -> None:
    given = {"model": "m", "prompt": "hello", "n": 2, "temperature": 0.0, "stop": "x", "seed": 4, "max_tokens": 5}
    first, second = completion_requests(CompletionBody.model_validate(given), tokenizer, DEFAULTS, 100)
    assert first.sampling == Sampling(temperature=0.0, top_k=7, stop=("x",), seed=4, max_tokens=5)
    assert (first.stream, second.stream) == (0, 1) and first.prompt[0] == tokenizer.bos_id
    assert first.stop_ids == {tokenizer.eos_id, tokenizer.pad_id}


@pytest.mark.parametrize(("given", "expected"), [(None, ("end",)), ([], ()), ("x", ("x",)), (["x", "y"], ("x", "y"))])
def test_a_servers_stop_strings_hold_unless_a_request_has_its_own_or_wants_none(
    tokenizer: Tokenizer, given: Any, expected: tuple[str, ...]
) -> None:
    body = CompletionBody(model="m", prompt="hello", stop=given)
    [request] = completion_requests(body, tokenizer, Sampling(stop=("end",)), 100)
    assert request.sampling.stop == expected


def test_without_a_seed_each_request_has_another(tokenizer: Tokenizer) -> None:
    body = CompletionBody(model="m", prompt=[1, 2])
    seeds = {completion_requests(body, tokenizer, DEFAULTS, 100)[0].sampling.seed for _ in range(20)}
    assert len(seeds) == 20


@pytest.mark.parametrize(("size", "fits"), [(99, True), (100, False)])
def test_a_prompt_leaves_room_for_a_token_and_is_never_cut(tokenizer: Tokenizer, size: int, fits: bool) -> None:
    body = CompletionBody(model="m", prompt=[5] * size, max_tokens=1000)
    if fits:
        assert len(completion_requests(body, tokenizer, DEFAULTS, 100)[0].prompt) == size
        return
    with pytest.raises(Problem, match="length is 100 tokens: the prompt has 100") as caught:
        completion_requests(body, tokenizer, DEFAULTS, 100)
    assert caught.value.code == "context_length_exceeded"


@pytest.mark.parametrize("echo", [False, True])
@pytest.mark.parametrize("prompt", [[310], [1, 9_999_999], [[1], [2, 310]]])
def test_ids_that_are_not_the_models_are_refused(tokenizer: Tokenizer, prompt: Any, echo: bool) -> None:
    with pytest.raises(Problem, match=r"prompt: expected ids from 0 to 309") as caught:
        completion_requests(CompletionBody(model="m", prompt=prompt, echo=echo), tokenizer, DEFAULTS, 100)
    assert (caught.value.status, caught.value.param) == (400, "prompt")


@pytest.mark.parametrize(("num_prompts", "fits"), [(12, True), (13, False)])
def test_log_probabilities_of_one_reply_are_bounded(tokenizer: Tokenizer, num_prompts: int, fits: bool) -> None:
    """12 prompts of 4,000 tokens with 20 alternatives each are about a million; their text would be 35 MB."""
    prompts = [[5] * 4000] * num_prompts
    body = CompletionBody(model="m", prompt=prompts, echo=True, logprobs=20, max_tokens=0)
    if fits:
        assert len(completion_requests(body, tokenizer, DEFAULTS, 4096)) == num_prompts
        return
    with pytest.raises(Problem, match=r"1,092,000 log-probabilities; expected at most 1,048,576") as caught:
        completion_requests(body, tokenizer, DEFAULTS, 4096)
    assert (caught.value.status, caught.value.param) == (400, "logprobs")
