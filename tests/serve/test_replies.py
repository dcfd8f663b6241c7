"""Tokens are spelled so that their bytes can be told, and chunks are events."""

import json
from typing import Any

import pytest

from minimind.generation.request import Event, Request, TokenScore
from minimind.generation.running import RunningRequest
from minimind.generation.sampler import Drawn
from minimind.generation.sampling import Sampling
from minimind.serve.ask import chat_requests
from minimind.serve.replies import DONE, ChatChoice, Envelope, TextChoice, chunk, usage
from minimind.serve.schema import ChatBody
from minimind.text.tokenizer import Tokenizer


def test_a_chunk_is_one_line_of_json_whatever_the_text() -> None:
    written = chunk({"text": "a\n\nb\u2028你"})
    assert written.startswith(b"data: ") and written.endswith(b"\n\n") and written.count(b"\n") == 2
    assert json.loads(written[6:]) == {"text": "a\n\nb\u2028你"} and DONE == b"data: [DONE]\n\n"


def test_all_chunks_of_a_reply_have_one_id() -> None:
    envelope = Envelope("chat.completion", "m")
    parts = [json.loads(envelope.part([{}])[6:]), json.loads(envelope.part([], usage(1, 2))[6:])]
    assert parts[0]["id"] == parts[1]["id"] == envelope.whole([], usage(1, 2))["id"]
    assert parts[0]["object"] == "chat.completion.chunk" and "usage" not in parts[0]
    assert parts[1]["usage"] == {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}


def test_parts_of_characters_are_spelled_as_bytes(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode_bytes("é".encode())
    choice = TextChoice(tokenizer, 0, echo=None, num_added=0, has_scores=True)
    scores = [TokenScore(index, -1.0, [(index, -1.0)]) for index in ids]
    choice.push([Event(0, index, scores=[score]) for index, score in zip(ids, scores, strict=True)])
    assert choice.whole()["logprobs"]["tokens"] == ["bytes:\\xc3", "bytes:\\xa9"]


CALL = '<tool_call>\n{"name": "f", "arguments": {}}\n</tool_call>'
TOOL = {"type": "function", "function": {"name": "f"}}


def answered(tokenizer: Tokenizer, ids: list[int], **given: Any) -> tuple[ChatChoice, list[dict[str, Any]]]:
    """The choice and the pieces it was told in, when the model says these ids."""
    body = ChatBody.model_validate({"model": "m", "messages": [{"role": "user", "content": "a"}], **given})
    [request] = chat_requests(body, tokenizer, Sampling(), 10_000)
    choice, running = ChatChoice(request, tokenizer, 0), RunningRequest(0, request, tokenizer, 10_000)
    told = [one for index in ids for one in choice.push([running.take(Drawn(index, 0.0), ())])]
    return choice, told


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ('\n{"name": "f", "arguments": {"x": [1', ("f", '{"x": [1')),
        ('\n{"name": "f", "arguments": {}}', ("f", "{}")),
        ('\n{"na', None),
    ],
)
@pytest.mark.parametrize("forced", [False, True])
def test_a_call_that_is_cut_has_the_arguments_so_far_and_no_markup(
    tokenizer: Tokenizer, said: str, expected: tuple[str, str] | None, forced: bool
) -> None:
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
    ids, given = tokenizer.encode_with_control(f"hi<tool_call>{said}"), {}
    if forced:
        # What the prompt writes of the call is not said again.
        ids = tokenizer.encode(said.removeprefix('\n{"name":') if expected else ' "')
        given = {"tool_choice": "required"}
    choice, told = answered(tokenizer, ids, tools=[tool], max_tokens=len(ids), **given)
    whole = choice.whole()
    assert whole["finish_reason"] == "length" == told[-1]["finish_reason"]
    calls = [call["function"] for call in whole["message"].get("tool_calls", ())]
    assert [(call["name"], call["arguments"]) for call in calls] == ([expected] if expected else [])
    text = whole["message"]["content"] or ""
    assert text == "".join(one["delta"].get("content", "") for one in told) == ("" if forced else "hi")
    pieces = [call["function"] for one in told for call in one["delta"].get("tool_calls", ())]
    assert "".join(piece["arguments"] for piece in pieces) == (expected[1] if expected else "")


@pytest.mark.parametrize(
    ("said", "reason", "num_calls"),
    [
        (f"{CALL}\n{CALL}<|im_end|>", "tool_calls", 2),
        (f"{CALL}\n{CALL[:20]}", "length", 1),
        ("hello", "length", 0),
    ],
)
def test_an_answer_that_was_cut_says_so_even_behind_a_whole_call(
    tokenizer: Tokenizer, said: str, reason: str, num_calls: int
) -> None:
    ids = tokenizer.encode_with_control(said)
    choice, _ = answered(tokenizer, ids, tools=[TOOL], max_tokens=len(ids))
    assert choice.whole()["finish_reason"] == reason
    assert len(choice.whole()["message"].get("tool_calls", ())) == num_calls


@pytest.mark.parametrize("echo", [False, True])
def test_each_token_is_where_the_text_has_it(tokenizer: Tokenizer, echo: bool) -> None:
    """Special tokens are in the text of a prompt and not in what follows it."""
    prompt = [tokenizer.bos_id, *tokenizer.encode_with_control("hello<|im_start|>")]
    drawn = tokenizer.encode_with_control("there<|im_start|>你<|im_end|>")
    request = Request(prompt=prompt, stop_ids=tokenizer.end_ids)
    row = RunningRequest(0, request, tokenizer, 1000)
    choice = TextChoice(tokenizer, 0, echo=prompt if echo else None, num_added=1, has_scores=True)
    if echo:
        choice.push([Event(0, scores=[TokenScore(index, -1.0, ()) for index in prompt])])
    choice.push([row.take(Drawn(index, -1.0), [TokenScore(index, -1.0, ())]) for index in drawn])
    text, scores = choice.whole()["text"], choice.whole()["logprobs"]
    assert text == ("hello<|im_start|>" if echo else "") + "there你"
    places = dict(zip(scores["tokens"], scores["text_offset"], strict=True))
    assert places["<|im_end|>"] == len(text)
    assert scores["text_offset"][-len(drawn)] == text.index("there")
