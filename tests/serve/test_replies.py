"""Tokens are spelled so that their bytes can be told, and chunks are events."""

import json
from typing import Any

import pytest

from minimind.generation.request import Event, Request, TokenScore
from minimind.generation.row import RunningRequest
from minimind.generation.sampling import Sampling
from minimind.serve.ask import chat_ask
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
    tool = {"type": "function", "function": {"name": "f"}}
    given: dict[str, Any] = {"messages": [{"role": "user", "content": "a"}], "tools": [tool], "max_tokens": len(ids)}
    ask = chat_ask(ChatBody.model_validate({"model": "m", **given}), tokenizer, Sampling(), 10_000)
    choice, row = ChatChoice(ask, tokenizer, 0), RunningRequest(0, ask.requests[0], tokenizer, 10_000)
    choice.push([row.take(index, ()) for index in ids])
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
    choice.push([row.take(index, [TokenScore(index, -1.0, ())]) for index in drawn])
    text, scores = choice.whole()["text"], choice.whole()["logprobs"]
    assert text == ("hello<|im_start|>" if echo else "") + "there你"
    places = dict(zip(scores["tokens"], scores["text_offset"], strict=True))
    assert places["<|im_end|>"] == len(text)
    assert scores["text_offset"][-len(drawn)] == text.index("there")
